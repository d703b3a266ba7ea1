"""YAML documents with line numbers, ``--set`` overrides, and all mistakes reported at once."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bettersynth.config.plain import plainly
from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean

Location = tuple[str | int, ...]
M = TypeVar("M")


class _Loader(yaml.SafeLoader):
    """The safe loader, reading ``1e-3`` as a number as YAML 1.2 does (YAML 1.1 wants a dot in it)."""


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Document:
    """A parsed YAML file: plain data, and the line on which each key or list item stands."""

    name: str
    data: dict[str, Any]
    lines: Mapping[Location, int] = field(default_factory=dict)

    def where(self, location: Location = ()) -> str:
        """``recipe.yaml:14 process[2].min_ratio`` for a path into the document; the nearest known line is used."""
        spot: Location = location
        while spot and spot not in self.lines:
            spot = spot[:-1]
        line = self.lines.get(spot)
        head = f"{self.name}:{line}" if line else self.name
        return f"{head} {show_location(location)}".rstrip()


def show_location(location: Location) -> str:
    """A path into a document as a user would write it.

    >>> show_location(("process", 2, "min_ratio"))
    'process[2].min_ratio'
    """
    shown = ""
    for part in location:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else str(part)
    return shown


def load_yaml(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: the file is missing or unreadable, is not valid YAML, or holds no mapping.
        ConfigErrors: keys are written twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            t("cannot read the file"), where=str(path), got=getattr(error, "strerror", None) or str(error)
        ) from error
    return parse_yaml(text, name=str(path))


def parse_yaml(text: str, *, name: str = "<text>") -> Document:
    """Parse YAML text safely (no Python objects), keeping line numbers; see :func:`load_yaml` for what it raises."""
    lines: dict[Location, int] = {}
    problems: list[BetterSynthError] = []
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()  # type: ignore[no-untyped-call]
            _walk(node, (), lines, problems, name)  # before the data are made, as that puts merged keys into the nodes
            data = None if node is None else loader.construct_document(node)  # type: ignore[no-untyped-call]
        finally:
            loader.dispose()  # type: ignore[no-untyped-call]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            t("not valid YAML"),
            where=f"{name}:{mark.line + 1}" if mark else name,
            got=getattr(error, "problem", None) or str(error),
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(
            t("the document must be a mapping of keys to values"),
            where=name,
            got=t("nothing") if data is None else type(data).__name__,
            expected="key: value",
        )
    raise_all(problems, where=name)
    return Document(name, data, lines)


def _walk(
    node: Any, location: Location, lines: dict[Location, int], problems: list[BetterSynthError], name: str
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            spot = (*location, str(key.value))
            if spot in lines:
                where = f"{name}:{key.start_mark.line + 1} {show_location(spot)}"
                problems.append(ConfigError(t("key written twice"), where=where, got=str(key.value)))
            lines[spot] = key.start_mark.line + 1
            _walk(value, spot, lines, problems, name)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            spot = (*location, number)
            lines[spot] = value.start_mark.line + 1
            _walk(value, spot, lines, problems, name)


def apply_overrides(document: Document, overrides: Iterable[str]) -> Document:
    """The document with ``a.b=value`` overrides applied; values are YAML, list items are numbers (``process.0.x=1``).

    Raises:
        ConfigErrors: an override is not of the form ``key=value``, or its path crosses a value that is no mapping.
    """
    data = _copy(document.data)
    lines = dict(document.lines)
    problems: list[BetterSynthError] = []
    for override in overrides:
        path, equals, raw = override.partition("=")
        if not equals or not path:
            problems.append(ConfigError(t("not an override"), where="--set", got=override, expected="key.subkey=value"))
            continue
        try:
            spot = _assign(data, path.split("."), yaml.load(raw, Loader=_Loader))
            lines.pop(spot, None)
        except (KeyError, IndexError, ValueError, TypeError, yaml.YAMLError) as error:
            problems.append(ConfigError(t("cannot apply the override"), where=f"--set {override}", got=str(error)))
    raise_all(problems, where="--set")
    return Document(document.name, data, lines)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _assign(data: Any, parts: list[str], value: Any) -> Location:
    target, spot = data, []
    for number, part in enumerate(parts):
        key: str | int = int(part) if isinstance(target, list) else part
        spot.append(key)
        if number == len(parts) - 1:
            target[key] = value
        elif isinstance(target, dict):
            if target.get(part) is None:
                target[part] = {}
            target = target[part]
        elif isinstance(target, list):
            target = target[int(part)]
        else:
            raise TypeError(t("{path} is not a mapping", path=".".join(parts[:number])))
    return tuple(spot)


def raise_all(problems: Sequence[BetterSynthError], *, where: str | None = None) -> None:
    """Raise nothing, the one problem, or all of them together."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ConfigErrors(problems, where=where)


def validate(model: type[M], document: Document) -> M:
    """The document as a pydantic model; every unknown key and wrong value is reported, with its line.

    Raises:
        ConfigError, ConfigErrors: one or several mistakes.
    """
    value, problems = check(model, document.data, document)
    raise_all(problems, where=document.name)
    return typing.cast(M, value)


def check(
    model: type[M], data: Mapping[str, Any], document: Document, at: Location = ()
) -> tuple[M | None, list[BetterSynthError]]:
    """Build ``model`` (a pydantic model or a plain dataclass) from ``data``; returns it or None, and the problems.

    Pydantic judges. It is left out, as importing it takes long, where a dataclass gets values that are plainly right.
    """
    problems: list[BetterSynthError] = []
    known = field_names(model)
    kept = {}
    for key, value in data.items():
        if key in known:
            kept[key] = value
            continue
        where = document.where((*at, key))
        hint = did_you_mean(str(key), known)
        problems.append(
            ConfigError(t("unknown key '{name}'", name=key), where=where, expected=_list_keys(known), hint=hint)
        )
    built = plainly(model, kept)
    if built is None:
        from bettersynth.config.judge import judge

        built, found = judge(model, kept, document, at)
        problems.extend(found)
    return (None if problems else built), problems


def field_names(model: Any) -> list[str]:
    """The keys a model accepts."""
    if hasattr(model, "model_fields"):  # pydantic's, which is not imported for the others
        return list(model.model_fields)
    return [spec.name for spec in dataclasses.fields(model) if spec.init]


def _list_keys(known: Sequence[str]) -> str:
    shown = ", ".join(list(known)[:12])
    return t("one of: {names}", names=shown + (", ..." if len(known) > 12 else ""))
