"""Files of the user with operators written for Data-Juicer's classes: found, asked about, and made known.

Data-Juicer's process loads them and tells kind and parameters of what they register; nothing of them is imported here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.core.registry import Registry
from bettersynth.ops._catalog import OPERATORS
from bettersynth.ops.foreign._facts import Custom, all_facts, declare
from bettersynth.ops.foreign._kinds import kind_names
from bettersynth.ops.foreign._process import PYTHON_VARIABLE, Died, code_digest, find_python, server

_told: set[tuple[Custom, str]] = set()


def declare_files(paths: Sequence[Path], python: str | None) -> list[BetterSynthError]:
    """Make the operators of these files and packages known; returns everything that is wrong with them.

    Args:
        paths: absolute, in the recipe's order.
        python: a Python with Data-Juicer that the recipe names, if it does.
    """
    try:
        found = find_python(python)
    except BetterSynthError as error:
        error.got = error.got or t("operators of Data-Juicer's classes in {files}", files=", ".join(map(str, paths)))
        return [error]
    custom = Custom(tuple(map(str, paths)), code_digest([str(path) for path in paths]))
    if (custom, found) in _told:
        return []
    problems: list[BetterSynthError] = []
    operators: dict[str, Any] = {}
    for number, path in enumerate(custom.paths):
        loading = dataclasses.replace(custom, paths=custom.paths[: number + 1])
        header = {"do": "declare", "custom": dataclasses.asdict(loading)}
        try:
            said, _ = server(found).ask(header)
        except Died as error:
            problems.append(
                ConfigError(t("Data-Juicer's process died while it loaded this file"), got=f"{path}: {error}")
            )
            break  # the next one would have it loaded again
        except BetterSynthError as error:
            hint = t("set {name} to the Python", name=PYTHON_VARIABLE)
            got = f"{found}: {error.message}"
            return [*problems, ConfigError(t("Data-Juicer cannot be loaded by this Python"), got=got, hint=hint)]
        if "error" in said:
            got = f"{said['place']}: {said['error']}"
            problems.append(ConfigError(t("this file of custom operators cannot be loaded"), got=got))
            continue
        wrong = _checked(path, said["operators"], said["closed"])
        problems += wrong
        operators |= {} if wrong else said["operators"]
    if not operators and not problems:
        hint = t("one must be registered: {example}", example='@OPERATORS.register_module("my_mapper")')
        problems.append(ConfigError(t("these files hold no operator"), got=", ".join(custom.paths), hint=hint))
    declare(operators, custom)  # also beside mistakes, so that the steps of the others are checked with them
    if not problems:
        _told.add((custom, found))
    return problems


def _checked(path: str, operators: dict[str, Any], closed: Sequence[str]) -> list[BetterSynthError]:
    problems: list[BetterSynthError] = []
    for name, about in operators.items():
        if Registry.__contains__(OPERATORS, name) or name in all_facts():
            problems.append(ConfigError(t("a custom operator may not take a name that exists"), got=f"{path}: {name}"))
        if name in closed:
            problems.append(
                ConfigError(
                    t("{name} does not take the keys that Data-Juicer gives to every operator", name=name),
                    got=path,
                    expected="def __init__(self, …, **kwargs): super().__init__(**kwargs)",
                )
            )
        taken = sorted(set(about["params"]) & kind_names(about["kind"]))
        if taken:
            problems.append(
                ConfigError(
                    t("parameters of {name} have names that are taken here", name=name),
                    got=f"{path}: {', '.join(taken)}",
                    hint=t("give them other names"),
                )
            )
    return problems
