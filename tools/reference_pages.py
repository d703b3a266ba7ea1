"""Writes the reference pages of docs/ from the code: every command, and every key of the documents a user writes.

    python tools/reference_pages.py            write the pages of docs/ that PAGES names
    python tools/reference_pages.py --check    write nothing; exit 1 and name the pages that are not current

A key's meaning is its ``description``, or the docstring below it in the source.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_NOTE = "Written by `tools/reference_pages.py` (`make docs`); do not edit."
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Any: "anything"}
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def commands_page() -> str:
    """All commands with their arguments, in the order of ``bettersynth --help``."""
    from bettersynth.cli.main import COMMANDS, build_parser, ordered_commands

    lines = [
        *_head("Commands"),
        "Every command also takes `--help` and `--lang zh|en`. Where there is `--plan`, it says what would be done",
        "and changes nothing; where there is `--json`, data goes to stdout as one JSON document. Exit codes: 0 done,",
        "1 failed, 2 the request is wrong, 130 interrupted (the same command continues).",
        "",
    ]
    for name in ordered_commands():
        parser = build_parser(name)
        lines += [f"## {name}", "", str(parser.description), "", f"`{parser.format_usage().split(': ', 1)[1].strip()}`"]
        lines += ["", *_table(("argument", "meaning"), _arguments(parser)), ""]
        examples = getattr(COMMANDS.module(name), "EXAMPLES", ())
        if examples:
            lines += ["```bash", *examples, "```", ""]
    return _page(lines)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
        shown = " ".join(value) if isinstance(value, tuple) else str(value)
        spelled = ", ".join(action.option_strings)
        if not spelled:
            spelled = shown
        elif action.nargs != 0:
            spelled += f" {shown}"
        meaning = action.help or _plain_default(action.default)
        yield f"`{spelled}`", meaning


def _plain_default(value: Any) -> str:
    return "" if value is None or value == argparse.SUPPRESS else f"default: {value}"


def recipe_page() -> str:
    """Every key of a recipe: ours and Data-Juicer's, those without effect, those refused."""
    from bettersynth.config import idle
    from bettersynth.config.recipe_keys import DatasetConfig, DatasetSource, RecipeKeys, Validator

    lines = [
        *_head("Recipe keys"),
        "The top level of a recipe file. Any of them can be given on the command line too: `--set seed=7`, or in",
        "Data-Juicer's spelling `--np 2` and `--text_length_filter.min_len 5`. Parameters of operators:",
        "`bettersynth explain NAME`, and [operators](operators.md) for which there are.",
        "",
        *_keys(RecipeKeys),
        "",
        "## Under `dataset`",
        "",
        _doc(DatasetConfig),
        "",
        *_keys(DatasetConfig),
        "",
        "Each entry of `configs`:",
        "",
        *_keys(DatasetSource),
        "",
        "## Each entry of `validators`",
        "",
        _doc(Validator),
        "",
        *_keys(Validator),
        "",
        "## Accepted without effect",
        "",
        "They steer Data-Juicer's own machinery. A recipe that sets one to something else than Data-Juicer's default",
        "is told so once.",
        "",
    ]
    grouped: dict[str, list[str]] = {}
    for name in idle.idle_keys():
        grouped.setdefault(idle.reason(name), []).append(f"`{name}`")
    lines += _table(("keys", "because"), [(", ".join(names), why) for why, names in grouped.items()])
    lines += [
        "",
        "## Refused when set",
        "",
        *_table(("key", "instead"), [(f"`{k}`", v) for k, v in idle.REFUSED.items()]),
    ]
    return _page(lines)


def training_page() -> str:
    """Every key of a training stage, and what each preset sets."""
    from bettersynth.config.train import Bases, Lora, StageConfig
    from bettersynth.config.unified import UnifiedSettings
    from bettersynth.train.preset import joint_preset_names, load_preset, preset_names

    lines = [
        *_head("Training keys"),
        "The keys of one stage. A preset file has them under `pretrain:` (stage 1) and `finetune:` (stage 2); on the",
        "command line they are `--set pretrain.KEY=VALUE` and `--set finetune.KEY=VALUE`. A locked preset refuses",
        "changes of all but its editable keys.",
        "",
        *_keys(StageConfig),
        "",
        "Under `bases`:",
        "",
        *_keys(Bases),
        "",
        "Under `lora`:",
        "",
        *_keys(Lora),
        "",
        "Under `unified` (families that learn texts and pictures jointly, in one stage; their presets have `joint:`):",
        "",
        *_keys(UnifiedSettings),
        "",
        "## Presets",
        "",
    ]
    for name in preset_names():
        preset = load_preset(name)
        state = "locked" if preset.locked else "open"
        free = ", ".join(f"`{key}`" for key in sorted(preset.editable)) or "nothing"
        lines += [
            f"### {name}",
            "",
            f"Track {preset.track}, {state}; editable: {free if preset.locked else 'everything'}.",
            "",
        ]
        first, second = preset.pretrain, preset.finetune
        rows = [(f"`{key}`", _value(first.get(key)), _value(second.get(key))) for key in {**first, **second}]
        lines += [*_table(("key", "stage 1", "stage 2"), rows), ""]
    for name in joint_preset_names():
        joint = load_preset(name).joint
        flat = {**joint, **{f"unified.{key}": value for key, value in joint.get("unified", {}).items()}}
        rows = [(f"`{key}`", _value(value)) for key, value in flat.items() if key != "unified"]
        lines += [f"### {name}", "", *_table(("key", "joint"), rows), ""]
    return _page(lines)


def techniques_page() -> str:
    """Every training technique with its settings."""
    from bettersynth.train.technique import TECHNIQUES

    lines = [
        *_head("Training techniques"),
        "What a preset may add to the challenge's recipe. All are off by default and refused by locked tracks. Copy a",
        "preset file, set `track: open` and `locked: false`, and name them in the stage that shall use them:",
        "",
        "```text",
        "finetune:",
        "  techniques:",
        "    curriculum: {by: loss}",
        "    ema: {decay: 0.99}",
        "```",
        "",
        "Several can be combined; the first is the outermost around the loss. A stopped run continues to the same bits",
        "with each of them. What they changed is in the manifest of the checkpoint under `facts.techniques`.",
        "What each of them brought on the demo world: [ablations](ablations.md).",
        "",
    ]
    for name in TECHNIQUES.names():
        module = TECHNIQUES.module(name)
        lines += [f"## {name}", "", *str(inspect.getdoc(module)).splitlines(), "", *_keys(module.Settings), ""]
    return _page(lines)


def unified_sample() -> str:
    """One record of every kind that joint training reads."""
    from bettersynth.formats.unified_schema import sample_data_format

    return sample_data_format()


def unified_schema() -> str:
    """JSON Schema of these records."""
    from bettersynth.formats.unified_schema import schema_text

    return schema_text()


def experiment_page() -> str:
    """Every key of an experiment file and of a submission file."""
    from bettersynth.config.eval import DecodingConfig
    from bettersynth.config.experiment import Condition, ExperimentConfig
    from bettersynth.config.submission import SubmissionConfig

    lines = [
        *_head("Experiment and submission keys"),
        "## Experiment (`bettersynth compare EXPERIMENT.yaml`)",
        "",
        *_keys(ExperimentConfig),
        "",
        "Each entry of `conditions`:",
        "",
        *_keys(Condition),
        "",
        "Under `decoding`:",
        "",
        *_keys(DecodingConfig),
        "",
        "## Submission (`bettersynth submit --config FILE.yaml`)",
        "",
        *_keys(SubmissionConfig),
    ]
    return _page(lines)


def _head(title: str) -> list[str]:
    return [f"# {title}", "", _NOTE, ""]


def _page(lines: Sequence[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def _keys(model: type) -> list[str]:
    """A table of a model's keys."""
    below = _docs_below(model)
    rows = []
    for name, field in _fields(model).items():
        meaning = field.description or below.get(name, "")
        bounds = [
            f"{sign} {getattr(mark, key)}" for mark in field.metadata for key, sign in _BOUNDS if hasattr(mark, key)
        ]
        kind = " ".join([_kind(field.annotation), *bounds])
        default = field.get_default(call_default_factory=True)
        rows.append((f"`{name}`", kind, "needed" if default is PydanticUndefined else _value(default), meaning))
    return _table(("key", "value", "default", "meaning"), rows)


def _fields(model: Any) -> Mapping[str, FieldInfo]:
    if issubclass(model, BaseModel):
        return model.model_fields
    kinds = typing.get_type_hints(model)
    return {spec.name: FieldInfo.from_annotated_attribute(kinds[spec.name], spec) for spec in dataclasses.fields(model)}


def _docs_below(model: type) -> dict[str, str]:
    """Docstrings that stand below the fields in the source."""
    body = ast.parse(inspect.getsource(model)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, doc in zip(body.body, body.body[1:], strict=False):
        is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if is_field and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            found[field.target.id] = " ".join(str(doc.value.value).split())  # type: ignore[attr-defined]
    return found


def _doc(model: type) -> str:
    return inspect.getdoc(model) or ""


def _kind(annotation: Any) -> str:
    """A type in a reader's words."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(part) for part in inner if part is not type(None))
    if origin in (tuple, list):
        if len(inner) == 2 and inner[1] is not Ellipsis:
            return f"{len(inner)} {_kind(inner[0])}s"
        return f"list of {_kind(inner[0])}" if inner else "list"
    if origin is dict or annotation is dict:
        return "mapping"
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        return "mapping, see below"
    return str(getattr(annotation, "__name__", annotation))


def _value(value: Any) -> str:
    """A value as it would stand in a YAML file."""
    if value is None or value in ("", (), [], {}):
        return ""
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Mapping):
        return "`{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}`"
    return f"`{list(value)}`" if isinstance(value, tuple | list | set | frozenset) else f"`{value}`"


def _table(header: Sequence[str], rows: Any) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"

    return [line(header), line(["---"] * len(header)), *(line(row) for row in rows)]


PAGES = {
    "commands.md": commands_page,
    "recipe-keys.md": recipe_page,
    "training-keys.md": training_page,
    "sample_data_format.json": unified_sample,
    "unified_record.schema.json": unified_schema,
    "techniques.md": techniques_page,
    "experiment-keys.md": experiment_page,
}


def main() -> int:
    """Write or check the pages."""
    from bettersynth.core.lang import set_language

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is not current")
    args = parser.parse_args()
    set_language("en")
    stale = []
    for name, build in PAGES.items():
        page, path = build(), DOCS / name
        if not path.is_file() or path.read_text(encoding="utf-8") != page:
            stale.append(name)
            if not args.check:
                path.write_text(page, encoding="utf-8")
    for name in stale:
        print(f"docs/{name}", "is not current: make docs" if args.check else "written")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
