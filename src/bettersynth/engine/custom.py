"""Operators from files of the user: ``custom_operator_paths`` of a recipe."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.config.load import Document
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.ops._catalog import OPERATORS, operator_class

_KEY = "custom_operator_paths"
_THEIRS = re.compile(r"^\s*(?:from|import)\s+(?:[\w., ]*[, ])?data_juicer\b", re.MULTILINE)
_OURS = re.compile(r"^\s*(?:from|import)\s+bettersynth\b", re.MULTILINE)


@dataclass(frozen=True)
class CustomFiles:
    """What became of a recipe's own files: everything that is wrong, and the text of those that could not be read."""

    problems: tuple[BetterSynthError, ...]
    unread: str

    def may_hold(self, name: str) -> bool:
        """Whether an operator that is not known may be in a file that could not be read; then only that is told."""
        return re.search(rf"\b{re.escape(name)}\b", self.unread) is not None


def register_custom(document: Document) -> CustomFiles:
    """Make the operators of a recipe's own files known.

    A file of our form holds one operator under its file name, like those of this package. Folders are searched for such
    files. The folder joins the module search path, which worker processes inherit.

    A file, or a folder with ``__init__.py``, that is written for Data-Juicer's classes holds any number of operators;
    Data-Juicer's process loads it (:mod:`bettersynth.ops.foreign._custom`).
    """
    listed: Any = document.data.get(_KEY) or document.data.get("custom-operator-paths") or ()
    problems: list[BetterSynthError] = []
    parts: dict[Path, tuple[bool, bool]] = {}
    for text in [listed] if isinstance(listed, str) else listed:
        path = _resolve(str(text), Path(document.name).parent)
        if path is None:
            problems.append(ConfigError(t("no such file or folder"), got=text, expected="NAME.py"))
        else:
            parts |= {part: _classes_of(part) for part in _parts(path)}
    has_theirs = any(is_theirs for is_theirs, _ in parts.values())
    theirs: list[Path] = []
    refused: list[Path] = []
    for part, (is_theirs, is_ours) in parts.items():
        if is_theirs and is_ours:
            refused.append(part)
            problems.append(_exported(part) if (part / "vendor" / "bettersynth").is_dir() else _mixed(part))
        elif is_theirs or (has_theirs and not is_ours):  # a file of neither kind helps those for Data-Juicer
            theirs.append(part)
        else:
            for file in [part] if part.is_file() else _files(part):
                problems.extend(_register(file))
    found = _declared(theirs, _python(document)) if theirs else []
    problems += found
    for problem in problems:
        problem.where = document.where((_KEY,))
    return CustomFiles(tuple(problems), "\n".join(map(_text, [*refused, *(theirs if found else ())])))


def _classes_of(path: Path) -> tuple[bool, bool]:
    """Whether a file, or the package in a folder, is written for Data-Juicer's classes, and whether for ours."""
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return any(map(_THEIRS.search, texts)), any(map(_OURS.search, texts))


def _parts(path: Path) -> list[Path]:
    """What is loaded by itself: a file, a package, or each file of a folder that is no package."""
    return [path] if path.is_file() or (path / "__init__.py").is_file() else _files(path)


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*.py")) if not file.stem.startswith("_")]


def _text(path: Path) -> str:
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


def _mixed(path: Path) -> ConfigError:
    return ConfigError(
        t("operators of ours and of Data-Juicer's classes are mixed"),
        got=path,
        expected=t("a file or package for each of the two"),
        hint=t("a folder without __init__.py may hold files of both"),
    )


def _exported(path: Path) -> ConfigError:
    return ConfigError(
        t("these operators of ours were exported for dj-process"),
        got=path,
        hint=t("process the recipe from which they were exported"),
    )


def _declared(paths: list[Path], python: str | None) -> list[BetterSynthError]:
    from bettersynth.ops.foreign._custom import declare_files  # few recipes have such files

    return declare_files(paths, python)


def _python(document: Document) -> str | None:
    """The Python with Data-Juicer that a step names."""
    listed: Any = document.data.get("process")
    listed = listed if isinstance(listed, list) else []
    params = [value for step in listed if isinstance(step, dict) for value in step.values()]
    named = (value.get("data_juicer_python") for value in params if isinstance(value, dict))
    return next((str(value) for value in named if value), None)


def _resolve(text: str, base: Path) -> Path | None:
    path = Path(text).expanduser()
    return next((place.resolve() for place in (path, base / path) if place.exists()), None)


def _register(file: Path) -> list[BetterSynthError]:
    if OPERATORS._modules.get(file.stem) == file.stem:
        return []
    if file.stem in OPERATORS or file.stem in sys.modules:
        return [ConfigError(t("a custom operator may not take a name that exists"), got=file.stem)]
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    OPERATORS._modules[file.stem] = file.stem
    try:
        operator_class(file.stem)
    except Exception as error:  # noqa: BLE001 - the user's file may fail in any way when it is imported
        del OPERATORS._modules[file.stem]
        sys.modules.pop(file.stem, None)
        got = error.message if isinstance(error, BetterSynthError) else f"{type(error).__name__}: {error}"
        return [
            ConfigError(
                t("this file holds no operator"),
                got=f"{file}: {got}",
                hint=t("see how one is written: bettersynth explain text_length_filter"),
            )
        ]
    return []
