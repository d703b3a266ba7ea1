"""Overrides in Data-Juicer's spelling: ``--key value``, ``--operator.parameter value``, ``--key=value``."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_NAME = re.compile(r"--([A-Za-z][A-Za-z0-9_.-]*)(?:=(.*))?", re.DOTALL)


def _is_key(name: str) -> bool:
    from bettersynth.config.idle import is_idle
    from bettersynth.config.recipe_keys import RecipeKeys

    return "." in name or name in RecipeKeys.__dataclass_fields__ or is_idle(name)


def as_sets(words: Sequence[str], *, own: Collection[str] = (), every: bool = False) -> list[str]:
    """The words with recipe keys written as ``--set key=value``; a key without a value means true.

    Args:
        own: flags of the command that are spelled like a key and stay.
        every: take every long flag for a key.

    >>> as_sets(["r.yaml", "--text_length_filter.min_len", "5", "--out", "x"])
    ['r.yaml', '--set', 'text_length_filter.min_len=5', '--out', 'x']
    """
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        match = _NAME.fullmatch(word)
        name = match.group(1).replace("custom-operator-paths", "custom_operator_paths") if match else ""
        flag = word.partition("=")[0]
        if match is None or flag in own or not (every or _is_key(name)):
            found.append(word)
            continue
        values = [match.group(2)] if match.group(2) is not None else []
        while not values or name == "custom_operator_paths":
            if not rest or rest[0].startswith("--"):
                break
            values.append(rest.pop(0))
        shown = values[0] if len(values) == 1 else f"[{', '.join(values)}]" if values else "true"
        found += ["--set", f"{name}={shown}"]
    return found
