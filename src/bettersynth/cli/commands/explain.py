"""Explain an operator, task, metric, training technique, preset, strategy or command; or list all of a kind.

The pages are made from the code itself, so they cannot differ from it.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any

from bettersynth.cli.main import COMMANDS, build_parser
from bettersynth.cli.render import print_json, print_rows
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.core.registry import Registry, did_you_mean

_MODULES = {
    "operator": Registry("operator", "bettersynth.ops", "bettersynth.operators"),
    "task": Registry("task", "bettersynth.eval.tasks", "bettersynth.tasks"),
    "metric": Registry("metric", "bettersynth.eval.metrics", "bettersynth.metrics"),
    "technique": Registry("technique", "bettersynth.train.techniques", "bettersynth.techniques"),
    "command": COMMANDS,
}
_FILES = {
    "strategy": ("experiment", "strategies"),
    "preset": ("train", "presets"),
    "model": ("models", "presets"),
}
_PLURALS = {"strategies": "strategy"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``explain``."""
    parser.add_argument(
        "name", nargs="?", help=t("a name, or a kind: operators, tasks, metrics, techniques, presets, strategies, …")
    )
    parser.add_argument("--json", action="store_true", help=t("print JSON"))


def _yaml_files(kind: str) -> dict[str, Any]:
    folder = resources.files("bettersynth").joinpath(*_FILES[kind])
    if not folder.is_dir():
        return {}
    return {item.name.removesuffix(".yaml"): item for item in folder.iterdir() if item.name.endswith(".yaml")}


def _names(kind: str) -> list[str]:
    return _MODULES[kind].names() if kind in _MODULES else sorted(_yaml_files(kind))


def _summary(kind: str, name: str) -> str:
    if kind in _MODULES:
        return _MODULES[kind].summary(name)
    return _file_summary(_yaml_files(kind)[name].read_text(encoding="utf-8"))


def _file_summary(text: str) -> str:
    """A strategy's hypothesis, else the first comment that is no command.

    >>> _file_summary("# bettersynth train --preset x\\n#\\n# Small and\\n# quick.\\nlr: 1\\n")
    'Small and quick.'
    """
    folded = re.search(r"^hypothesis: *(?:[>|]-?\n((?:  .*\n)+)|(.+))", text, re.MULTILINE)
    if folded:
        return " ".join((folded.group(1) or folded.group(2)).split())
    head = re.match(r"(?:#.*\n)+", text)
    said = head.group() if head else ""
    paragraphs = [" ".join(part.replace("#", " ").split()) for part in re.split(r"^#\s*$", said, flags=re.MULTILINE)]
    return next((part for part in paragraphs if part and not part.startswith("bettersynth ")), "")


def _kinds() -> Iterable[str]:
    return [*_MODULES, *_FILES]


def _operator(name: str) -> dict[str, Any]:
    from bettersynth.ops._catalog import operator_class

    cls = operator_class(name)
    fields = {
        field.name: None if field.default is dataclasses.MISSING else field.default for field in dataclasses.fields(cls)
    }
    facts = {fact: getattr(cls, fact) for fact in ("reads", "writes", "version", "track", "models")}
    return {"name": name, "kind": "operator", "doc": inspect.getdoc(cls), **facts, "parameters": fields}


def _technique(name: str) -> dict[str, Any]:
    module = _MODULES["technique"].module(name)
    fields = {key: field.get_default() for key, field in module.Settings.model_fields.items()}
    return {"name": name, "kind": "technique", "doc": inspect.getdoc(module), "parameters": fields}


def _is_data_juicers(name: str) -> bool:
    """Whether an operator is one of Data-Juicer's that the adapter runs."""
    from bettersynth.ops._catalog import OPERATORS

    return OPERATORS.is_foreign(name)


def _module(kind: str) -> Callable[[str], dict[str, Any]]:
    def describe(name: str) -> dict[str, Any]:
        module = _MODULES[kind].module(name)
        extra = {key.lower(): getattr(module, key) for key in ("PROMPTS", "METRICS", "CHANCE") if hasattr(module, key)}
        return {"name": name, "kind": kind, "doc": inspect.getdoc(module), **extra}

    return describe


def _describe(kind: str, name: str) -> dict[str, Any]:
    if kind == "command":
        return {"name": name, "kind": kind, "doc": build_parser(name).format_help()}
    if kind in ("operator", "technique"):
        return _operator(name) if kind == "operator" else _technique(name)
    if kind in _MODULES:
        return _module(kind)(name)
    return {"name": name, "kind": kind, "doc": _yaml_files(kind)[name].read_text(encoding="utf-8")}


def _shown(value: Any) -> str:
    """A fact or default for people: lists without Python's marks, nothing as a dash, an empty text in quotes."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_shown(item)}" for name, item in value.items()) or "-"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(_shown, value)) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value) or '""'


def run(args: argparse.Namespace) -> int:
    """List the kinds, the names of a kind, or explain one name."""
    if args.name is None:
        rows = [(kind, len(_names(kind))) for kind in _kinds()]
        print_json(dict(rows)) if args.json else print_rows((t("kind"), t("names")), rows)
        return 0
    kind = _PLURALS.get(args.name, args.name.removesuffix("s"))
    if kind in _kinds() and args.name != kind:
        rows = [(name, t(_summary(kind, name))) for name in _names(kind)]
        print_json(dict(rows)) if args.json else print_rows((kind, t("what it does")), rows)
        return 0
    found = [kind for kind in _kinds() if args.name in _names(kind)]
    found = found or (["operator"] if _is_data_juicers(args.name) else [])
    if not found:
        known = [name for kind in _kinds() for name in _names(kind)]
        hint = did_you_mean(args.name, known) or t("see: {command}", command="bettersynth explain")
        raise ConfigError(t("nothing of that name"), got=args.name, hint=hint)
    described = [_describe(kind, args.name) for kind in found]
    if args.json:
        print_json(described)
        return 0
    for page in described:
        name, kind = page.pop("name"), page.pop("kind")
        summary = _summary(kind, name) if kind != "command" and name in _names(kind) else ""
        head = [t(summary)] if t(summary) != summary else []  # what follows is the code's own, in English
        print("\n\n".join([f"{name} ({t(kind)})", *head, page.pop("doc")]) + "\n")
        parameters = page.pop("parameters", None)
        if page:
            print_rows((t("fact"), t("value")), [(t(name), _shown(value)) for name, value in page.items()])
        if parameters:
            print()
            print_rows((t("parameter"), t("default")), [(name, _shown(value)) for name, value in parameters.items()])
    return 0
