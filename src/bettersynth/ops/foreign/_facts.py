"""What is known of Data-Juicer 1.6.1's operators without having it: kind, parameters, and how a trial run ended.

The file beside is written by ``tools/operator_table.py`` from an installed Data-Juicer, never by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

VERSION = "1.6.1"
FILE = "data_juicer_1_6_1.json"
# Parameters of Data-Juicer's base classes that change what an operator does; the others steer its own machinery.
_FIELDS = (
    *("audio_key", "video_key", "image_bytes_key", "system_key", "instruction_key", "prompt_key"),
    *("query_key", "response_key", "history_key"),
)
_RANGES = ("min_closed_interval", "max_closed_interval", "reversed_range")
_UNUSABLE_KINDS = {"pipeline": "runs inside Ray and vLLM, not row by row", "other": "is no operator on rows"}
_UNUSABLE = {
    "document_line_deduplicator": "rewrites the texts of all rows at once",
    "naive_reverse_grouper": "undoes a grouping, and groups are only numbered here",
}


@dataclass(frozen=True, slots=True)
class Custom:
    """The user's files with operators written for Data-Juicer's classes, as one recipe lists them.

    Args:
        paths: absolute files and package folders, in the recipe's order. All are loaded together, as they may build on
            one another.
        digest: of all their code; part of the cache keys of their operators.
    """

    paths: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Facts:
    """One operator of Data-Juicer, or of the user's files for it.

    Args:
        kind: ``filter``, ``mapper``, ``deduplicator``, ``selector``, ``grouper``, ``aggregator`` or ``pipeline``.
        params: parameter name to what is known of it: ``types`` (JSON types that fit), ``default``, ``needed``.
        status: how the trial ended: ``ran``, ``constructs``, ``model``, ``refuses``.
        note: why, in a few words.
        changes: fields that the trial's rows got or changed; a mapper that only changes ``text`` or ``images`` and
            makes one row of one keeps within the challenge's rules.
        is_one_to_one: the trial made one row of each row.
        custom: the files that it comes with, when it is the user's.
    """

    name: str
    kind: str
    params: Mapping[str, Mapping[str, Any]]
    status: str = ""
    note: str = ""
    changes: tuple[str, ...] = ()
    is_one_to_one: bool = False
    custom: Custom | None = None

    @property
    def refusal(self) -> str:
        """Why the adapter has no place for it, or empty."""
        if self.name.startswith("ray_"):
            return "belongs to Ray's executor; use it without ray_"
        return _UNUSABLE.get(self.name) or _UNUSABLE_KINDS.get(self.kind, "")


def _without(params: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: about for name, about in params.items() if name not in known}


def _facts(name: str, found: Mapping[str, Any], custom: Custom | None = None) -> Facts:
    common = {name: {"types": ["str"]} for name in _FIELDS}
    if found["kind"] == "filter":
        common |= {name: {"types": ["bool"]} for name in _RANGES}
    return Facts(
        name,
        found["kind"],
        {**found["params"], **_without(common, found["params"])},
        found.get("status", ""),
        found.get("note", ""),
        tuple(found.get("changes", ())),
        found.get("is_one_to_one", False),
        custom,
    )


@lru_cache(maxsize=1)
def all_facts() -> dict[str, Facts]:
    """Every operator of Data-Juicer's by name."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return {name: _facts(name, found) for name, found in json.loads(text)["operators"].items()}


_declared: dict[str, Facts] = {}


def declare(found: Mapping[str, Mapping[str, Any]], custom: Custom) -> None:
    """Make the operators of the user's files known, as the process with Data-Juicer found them."""
    _declared.update({name: _facts(name, about, custom) for name, about in found.items()})


def known_facts() -> dict[str, Facts]:
    """Data-Juicer's operators and those that were declared."""
    return {**all_facts(), **_declared}
