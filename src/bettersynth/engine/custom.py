"""Operators from files of the user: ``custom_operator_paths`` of a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bettersynth.config.load import Document
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.ops._catalog import OPERATORS, operator_class

_KEY = "custom_operator_paths"


def register_custom(document: Document) -> list[BetterSynthError]:
    """Make the operators of a recipe's own files known under their file names; returns what is wrong with them.

    A file holds one operator, like those of this package. Folders are searched for such files. The folder joins the
    module search path, which worker processes inherit.
    """
    listed: Any = document.data.get(_KEY) or document.data.get("custom-operator-paths") or ()
    problems: list[BetterSynthError] = []
    for text in [listed] if isinstance(listed, str) else listed:
        path = _resolve(str(text), Path(document.name).parent)
        if path is None:
            problems.append(
                ConfigError(t("no such file or folder"), where=document.where((_KEY,)), got=text, expected="NAME.py")
            )
            continue
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            if not file.stem.startswith("_"):
                problems.extend(_register(file, document.where((_KEY,))))
    return problems


def _resolve(text: str, base: Path) -> Path | None:
    path = Path(text).expanduser()
    return next((place.resolve() for place in (path, base / path) if place.exists()), None)


def _register(file: Path, where: str) -> list[BetterSynthError]:
    if OPERATORS._modules.get(file.stem) == file.stem:
        return []
    if file.stem in OPERATORS or file.stem in sys.modules:
        return [ConfigError(t("a custom operator may not take a name that exists"), where=where, got=file.stem)]
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    OPERATORS._modules[file.stem] = file.stem
    try:
        operator_class(file.stem)
    except Exception as error:  # noqa: BLE001 - the user's file may fail in any way when it is imported
        del OPERATORS._modules[file.stem]
        sys.modules.pop(file.stem, None)
        got = error.message if isinstance(error, BetterSynthError) else f"{type(error).__name__}: {error}"
        is_foreign = "data_juicer" in file.read_text(encoding="utf-8", errors="replace")
        message = t("this file holds no operator")
        return [
            ConfigError(
                t("operators written for Data-Juicer's classes are not loaded") if is_foreign else message,
                where=where,
                got=f"{file}: {got}",
                hint=t("see how one is written: bettersynth explain text_length_filter"),
            )
        ]
    return []
