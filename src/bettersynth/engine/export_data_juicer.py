"""A recipe for plain ``dj-process``: its own operators where they do the same, else ours as files that it loads.

The folder holds ``recipe.yaml``, ``bettersynth_operators/`` (one file per operator of ours, registered with
Data-Juicer through ``custom_operator_paths``, and a copy of the code they need) and a README. Our engine is not in it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import bettersynth
from bettersynth.config.recipe import Recipe, Step
from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.engine.plan import Plan, own_columns, unwrap
from bettersynth.ops._catalog import OPERATORS
from bettersynth.ops.base import (
    TEXT,
    Deduplicator,
    Filter,
    FittedFilter,
    GlobalOperator,
    Operator,
    RangeFilter,
    TextMapper,
)
from bettersynth.ops.foreign._facts import VERSION, all_facts, known_facts

PACKAGE, RECIPE_FILE = "bettersynth_operators", "recipe.yaml"
CUSTOM = "custom_operators"
UNSET = "(not given)"
_FLOORS = ("core", "config", "formats", "media", "models", "infer", "ops")
# The executor writes stats with ten decimals before it compares; this much room keeps values that lie on a bound.
_ROOM = 1e-9
# Ours never takes special tokens out; Data-Juicer's take ``<image>`` for markup, or a line that many rows share.
_NEVER_THEIRS = frozenset(("clean_html_mapper", "document_line_deduplicator"))


@dataclass(frozen=True)
class Exported:
    """What was written: for each step its name here and in the exported recipe."""

    folder: Path
    steps: tuple[tuple[str, str], ...]

    @property
    def num_ours(self) -> int:
        """Steps that run our code inside Data-Juicer."""
        return sum(name.startswith("bettersynth_") for _, name in self.steps)


def export_data_juicer(planned: Plan, out: Path) -> Exported:
    """Write recipe and operator package.

    Raises:
        ConfigError: a step cannot run there. DataError: the folder cannot be written.
    """
    recipe = planned.recipe
    steps, files = [], {"start": _file("start", "Start", None), "finish": _file("finish", "Finish", None)}
    process: list[dict[str, Any]] = [{"bettersynth_start": {"places": _places(recipe)}}]
    names = [step.operator for step in recipe.steps]
    for number, (step, operator) in enumerate(zip(recipe.steps, planned.operators, strict=True)):
        if own_columns(step, operator, recipe.document):
            raise ConfigError(t("a step with columns of its own cannot be exported"), where=step.where)
        params = their_params(step, operator, is_alone=names.count(step.operator) == 1)
        name = step.operator
        if params is None:
            base, prefix = _base(operator)
            name = f"bettersynth_{prefix}{step.operator}"
            files[f"{prefix}{step.operator}"] = _file(f"{prefix}{step.operator}", base, unwrap(operator))
            params = {**_plain(step.params), "step": number}
        process.append({name: params})
        steps.append((step.operator, name))
    process.append({"bettersynth_finish": {}})
    _say_all(process)
    try:
        _write(out, _document(recipe, process) | _custom(planned, out), _settings(recipe), files)
    except OSError as error:
        raise DataError(t("cannot write the file"), where=str(out), got=error.strerror or str(error)) from error
    return Exported(out, tuple(steps))


def _custom(planned: Plan, out: Path) -> dict[str, Any]:
    """Copy the user's own files for Data-Juicer beside the recipe, and name them in it after our package."""
    found = (getattr(unwrap(operator), "facts", None) for operator in planned.operators)
    paths = next((facts.custom.paths for facts in found if facts is not None and facts.custom is not None), ())
    for path in map(Path, paths):
        copy = out / CUSTOM / path.name
        if copy.resolve() == path:
            continue
        if copy.resolve().is_relative_to(path):
            raise ConfigError(t("the folder to write lies in a folder of custom operators"), got=out)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copyfile(path, copy)
    return {"custom_operator_paths": [f"./{PACKAGE}", *(f"./{CUSTOM}/{Path(path).name}" for path in paths)]}


def _say_all(process: list[dict[str, Any]]) -> None:
    """Give steps of equal name equal keys: in Data-Juicer a later one inherits what an earlier one was given."""
    given: dict[str, dict[str, None]] = {}
    for step in process:
        for name, params in step.items():
            given.setdefault(name, {}).update(dict.fromkeys(params))
    for step in process:
        for name, params in step.items():
            for key in given[name]:
                if key in params:
                    continue
                about: Mapping[str, Any] = {"default": UNSET}
                if not name.startswith("bettersynth_"):
                    about = known_facts()[name].params.get(key, {})
                if "default" not in about:
                    raise ConfigError(
                        t("every step of this operator must give the same keys, because Data-Juicer mixes them"),
                        where=name,
                        expected=key,
                    )
                params[key] = about["default"]


def their_params(step: Step, operator: Operator, *, is_alone: bool) -> dict[str, Any] | None:
    """Parameters for Data-Juicer's own operator of that name, or None when ours has to run.

    Its own is used for texts only (a damaged picture would take its whole batch along there), and when the name stands
    once in the recipe (see :func:`_say_all`).
    """
    if OPERATORS.is_foreign(step.operator):
        return {name: value for name, value in _plain(step.params).items() if name != "data_juicer_python"}
    facts = all_facts().get(step.operator)
    fields = {field.name: field for field in dataclasses.fields(operator)}
    kinds = (TextMapper, RangeFilter, Deduplicator)
    plain = isinstance(operator, kinds) and operator.needs() == (TEXT,) and not operator.models
    if facts is None or not (plain and is_alone) or step.operator in _NEVER_THEIRS:
        return None
    if any(name not in facts.params and getattr(operator, name) != f.default for name, f in fields.items()):
        return None
    bounds: tuple[str, ...] = operator.bounds if isinstance(operator, RangeFilter) else ()
    params: dict[str, Any] = {}
    for name in fields:
        value = getattr(operator, name)
        about = facts.params.get(name)
        if about is None or value is None or ("default" in about and about["default"] == value):
            continue
        if name in bounds and isinstance(value, float):
            if isinstance(operator, RangeFilter) and not _is_closed(operator):
                return None
            value += _ROOM if name == bounds[-1] else -_ROOM
        params[name] = value
    return _plain(params)


def _is_closed(operator: RangeFilter) -> bool:
    return operator.min_closed_interval and operator.max_closed_interval and not operator.reversed_range


def _base(operator: Operator) -> tuple[str, str]:
    if isinstance(operator, FittedFilter):
        return "Chooser", "fitted_"
    if isinstance(operator, GlobalOperator):
        return "Chooser", ""
    return ("RowFilter", "") if isinstance(operator, Filter) else ("RowMapper", "")


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dict(params)))
    return found


def _places(recipe: Recipe) -> dict[str, Any]:
    source = recipe.sources()
    folder = (source[0] if source and source[0].is_dir() else source[0].parent) if source else None
    root = recipe.keys.image_root
    return {
        "image_root": None if root is None else str(_found(root, recipe)),
        "dataset_folder": None if folder is None else str(folder.absolute()),
        "on_missing_image": recipe.keys.on_missing_image,
    }


def _found(text: str, recipe: Recipe) -> Path:
    path = Path(text).expanduser()
    return (path if path.is_absolute() or path.exists() else recipe.base / path).absolute()


def _document(recipe: Recipe, process: list[dict[str, Any]]) -> dict[str, Any]:
    keys, sources = recipe.keys, recipe.sources()
    document: dict[str, Any] = {"project_name": keys.project_name}
    if len(sources) == 1:
        document["dataset_path"] = str(sources[0].absolute())
    elif sources:
        document["dataset"] = {"configs": [{"type": "local", "path": str(path.absolute())} for path in sources]}
    document |= {
        "export_path": "./output/processed_data.jsonl",
        "np": keys.np or 1,
        "text_keys": recipe.text_key,
        "image_key": keys.image_key,
        "image_special_token": keys.image_special_token,
        "eoc_special_token": keys.eoc_special_token,
        "keep_stats_in_res_ds": keys.keep_stats_in_res_ds,
        # Its own way with an error is to drop the batch and count nothing; ours sets the row aside.
        "skip_op_error": False,
        "process": process,
    }
    return document


def _file(name: str, base: str, operator: Operator | None) -> str:
    """The source of one operator file."""
    ours = operator.name if operator is not None else ""
    params = [field.name for field in dataclasses.fields(operator)] if operator is not None else ["places"]
    arguments = ", ".join(f"{param}=UNSET" for param in params)
    kept = ", ".join(f"({param!r}, {param})" for param in params)
    given = "places" if operator is None else f"{{name: value for name, value in ({kept},) if value != UNSET}}"
    given = given if operator is not None or name == "start" else "{}"
    cls = "".join(part.capitalize() for part in name.split("_"))
    return f'''"""{ours or name} of bettersynth {bettersynth.__version__}, as an operator of Data-Juicer."""

from bettersynth.ops.foreign._bridge import {base}
from data_juicer.ops.base_op import OPERATORS

from .settings import QUARANTINE, SETTINGS, UNSET


@OPERATORS.register_module("bettersynth_{name}")
class {cls}({base}):
    """{_summary(ours)}"""

    operator = "{ours}"

    def __init__(self, {arguments}, step=0, **kwargs):
        super().__init__(**kwargs)
        self.set_up(step, {given}, SETTINGS, QUARANTINE)
'''


def _summary(name: str) -> str:
    return OPERATORS.summary(name) if name else "Bookkeeping around the operators of bettersynth."


def _settings(recipe: Recipe) -> str:
    keys = recipe.keys
    images = list(dict.fromkeys([keys.image_special_token, "<__dj__image>", "<image>"]))
    tokens = {
        "images": images,
        "audio": keys.audio_special_token,
        "video": keys.video_special_token,
        "eoc": keys.eoc_special_token,
    }
    settings = {"seed": keys.seed, "tokens": tokens, "on_truncated": keys.on_truncated, "device": keys.device}
    return f'''"""What all steps of the recipe share."""

from pathlib import Path

SETTINGS = {settings!r}
QUARANTINE = str(Path(__file__).resolve().parents[1] / "quarantine.jsonl")
UNSET = {UNSET!r}
'''


_NEEDED = ("numpy", "pyarrow", "pydantic", "orjson", "xxhash", "scipy", "ftfy", "selectolax", "PIL")
_INIT = '''"""Operators of bettersynth for Data-Juicer; loaded through custom_operator_paths."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

_missing = [name for name in {needed!r} if find_spec(name) is None]
if _missing:
    raise ImportError("the operators of bettersynth need: pip install " + " ".join(_missing))
sys.path.insert(0, str(Path(__file__).resolve().parent / "vendor"))
for _file in sorted(Path(__file__).resolve().parent.glob("*.py")):
    if _file.stem not in ("__init__", "settings"):
        import_module("." + _file.stem, __name__)
'''

_README = """# {name}: a recipe for Data-Juicer {version}

    pip install py-data-juicer=={version} aiohttp pydantic orjson xxhash scipy ftfy selectolax pillow
    dj-process --config recipe.yaml        # in this folder, Python 3.11 or newer

The result is `output/processed_data.jsonl`. Steps named `bettersynth_*` are operators of bettersynth, which Data-Juicer
loads from `bettersynth_operators/`; the others are its own. A row that one of ours cannot work on is left out alone
and written to `quarantine.jsonl` with its error. Operators with models also need torch and transformers.
"""


def _write(out: Path, document: Mapping[str, Any], settings: str, files: Mapping[str, str]) -> None:
    package = out / PACKAGE
    shutil.rmtree(package, ignore_errors=True)
    vendor = package / "vendor" / "bettersynth"
    vendor.mkdir(parents=True)
    source = Path(bettersynth.__file__).parent
    shutil.copyfile(source / "__init__.py", vendor / "__init__.py")
    for floor in _FLOORS:
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "locale")
        shutil.copytree(source / floor, vendor / floor, ignore=ignore, copy_function=shutil.copyfile)
    write_atomic(package / "settings.py", settings.encode())
    for name, text in files.items():
        write_atomic(package / f"{name}.py", text.encode())
    write_atomic(package / "__init__.py", _INIT.format(needed=_NEEDED).encode())
    text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=110)
    head = "# dj-process --config recipe.yaml   (in this folder)\n"
    write_atomic(out / RECIPE_FILE, (head + text).encode())
    readme = _README.format(name=document["project_name"], version=VERSION)
    write_atomic(out / "README.md", readme.encode())
