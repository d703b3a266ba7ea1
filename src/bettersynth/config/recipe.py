"""The recipe: what should happen to a data set, in Data-Juicer's syntax with a few keys of our own."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bettersynth.config import idle
from bettersynth.config.load import Document, apply_overrides, check, field_names, load_yaml, raise_all
from bettersynth.config.recipe_keys import DatasetSource, RecipeKeys, Track
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean

__all__ = ["Input", "Recipe", "RecipeKeys", "Step", "Track", "build_recipe", "load_recipe"]


@dataclass(frozen=True)
class Step:
    """One entry of the process list, not yet checked against the operator."""

    operator: str
    params: Mapping[str, Any]
    position: int
    where: str


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. ``keys`` holds the global settings, ``steps`` the process list with variables filled in."""

    keys: RecipeKeys
    steps: tuple[Step, ...]
    document: Document
    base: Path
    ignored: tuple[str, ...] = field(default=())
    notices: tuple[str, ...] = field(default=())

    @property
    def text_key(self) -> str:
        """The column operators read as ``text``."""
        return self.keys.text_keys if isinstance(self.keys.text_keys, str) else self.keys.text_keys[0]

    def inputs(self) -> list[Input]:
        """What to read, in order; places are resolved against the working directory and then the recipe's folder."""
        listed, most = self._listed()
        shares = share_out(most, [source.weight for source in listed]) if most is not None else [None] * len(listed)
        return [
            Input(self._resolve(source.path), share, source.limit, source)
            for source, share in zip(listed, shares, strict=True)
        ]

    def sources(self) -> list[Path]:
        """The local files or folders to read."""
        return [Path(source.place) for source in self.inputs()]

    def _listed(self) -> tuple[list[DatasetSource], int | None]:
        if self.keys.dataset_path:
            whole = self._resolve(self.keys.dataset_path)
            parts = [] if Path(whole).exists() else mixture(self.keys.dataset_path)
            return parts or [DatasetSource(path=self.keys.dataset_path)], None
        if self.keys.dataset is not None:
            return list(self.keys.dataset.configs), self.keys.dataset.max_sample_num
        return [], None

    def _resolve(self, text: str) -> str:
        if is_remote(text):
            return text
        path = Path(text).expanduser()
        return str(path if path.is_absolute() or path.exists() else (self.base / path))


@dataclass(frozen=True)
class Input:
    """One source: a path or URL, and how many rows are drawn from it (all when None, in file order)."""

    place: str
    take: int | None = None
    limit: int | None = None
    source: DatasetSource | None = None


def is_remote(text: str) -> bool:
    """Whether a place is a URL rather than a local path."""
    return re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def mixture(text: str) -> list[DatasetSource]:
    """The parts of ``w1 path1 w2 path2 ...``; empty when the text is one path.

    >>> [(part.weight, part.path) for part in mixture("1 a.jsonl 0.5 b.jsonl")]
    [(1.0, 'a.jsonl'), (0.5, 'b.jsonl')]
    """
    found: list[DatasetSource] = []
    weight: float | None = None
    for word in text.split():
        if weight is None and re.fullmatch(r"[0-9]*\.?[0-9]+", word) and float(word) > 0:
            weight = float(word)
            continue
        found.append(DatasetSource(path=word, weight=1.0 if weight is None else weight))
        weight = None
    return found if len(found) > 1 or (found and found[0].path != text) else []


def share_out(most: int, weights: list[float]) -> list[int | None]:
    """Rows of each source: its share of ``most`` rounded up, the last ones cut so that the sum fits (Data-Juicer).

    >>> share_out(10, [1, 1, 1])
    [4, 4, 2]
    """
    left, shares = most, []
    for weight in weights:
        share = min(left, math.ceil(most * weight / sum(weights)))
        shares.append(share)
        left -= share
    return list(shares)


_UNREAD = ("source", "name", "format", "data_files", "data_dir")
"""Keys of a data set's source that are accepted and say nothing that its path does not."""

_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def load_recipe(
    path: Path,
    *,
    overrides: Iterable[str] = (),
    variables: Mapping[str, str | int | float] | None = None,
    check_steps: Callable[[tuple[Step, ...], Document], list[BetterSynthError]] | None = None,
    check_recipe: Callable[[Recipe], list[BetterSynthError]] | None = None,
) -> Recipe:
    """Read, override and check a recipe file.

    Args:
        overrides: ``key=value`` texts; ``OPERATOR.param=value`` reaches into the process list.
        variables: values for ``{name}`` in strings; they win over the recipe's own ``vars``.
        check_steps: checks the process list against the operators (given by the engine), so that all mistakes of the
            file are shown together.
        check_recipe: checks what the recipe names outside itself: data, columns, places to write.

    Raises:
        ConfigError, ConfigErrors: everything that is wrong, with line numbers.
    """
    return build_recipe(
        load_yaml(path),
        base=path.parent,
        overrides=overrides,
        variables=variables,
        check_steps=check_steps,
        check_recipe=check_recipe,
    )


def build_recipe(
    document: Document,
    *,
    base: Path,
    overrides: Iterable[str] = (),
    variables: Mapping[str, str | int | float] | None = None,
    check_steps: Callable[[tuple[Step, ...], Document], list[BetterSynthError]] | None = None,
    check_recipe: Callable[[Recipe], list[BetterSynthError]] | None = None,
) -> Recipe:
    """Like :func:`load_recipe`, from a parsed document; relative paths start at ``base``."""
    document = apply_overrides(document, _expand_operator_overrides(document, overrides))
    data = {key: value for key, value in document.data.items() if value is not None}  # "key:" alone is not set
    problems: list[BetterSynthError] = []
    ignored = _take_idle(data, document, problems)
    _take_unknown(data, document, problems, tuple(step for entry in _entries(data) for step in entry))
    if isinstance(data.get("dataset"), list):  # Data-Juicer also takes the list of sources by itself
        data["dataset"] = {"configs": data["dataset"]} if data["dataset"] else None
    values = _variables(data, variables or {}, base)
    data = {
        key: _fill(item, values, document, (key,), problems) if key != "vars" else item for key, item in data.items()
    }
    process = data.pop("process", None) or []
    keys, key_problems = check(RecipeKeys, data, document)
    problems.extend(key_problems)
    if keys is not None and not keys.text_keys:
        problems.append(
            ConfigError(
                t("value not accepted"),
                where=document.where(("text_keys",)),
                got=data["text_keys"],
                expected=t("at least one text key"),
            )
        )
    steps = _steps(process, document, problems)
    if check_steps is not None:
        problems.extend(check_steps(steps, document))
    recipe = None
    if keys is not None:
        recipe = Recipe(keys, steps, document, base, ignored, (*_idle_notices(ignored), *_differences(keys, data)))
        problems.extend(check_recipe(recipe) if check_recipe is not None else ())
    raise_all(problems, where=document.name)
    assert recipe is not None  # check() returns either a value or problems, and problems have been raised
    return recipe


def _take_idle(data: dict[str, Any], document: Document, problems: list[BetterSynthError]) -> tuple[str, ...]:
    """Take the keys without effect out of ``data``; returns those that ask for something else than usual."""
    found = {key: data.pop(key) for key in list(data) if idle.is_idle(key)}
    plain = {key: value for key, value in found.items() if key in idle.idle_keys()}
    problems.extend(check(idle.IdleKeys, plain, document)[1])
    for key in list(data):
        if key in idle.REFUSED and data.pop(key):
            where = document.where((key,))
            problems.append(ConfigError(t("this key is not supported"), where=where, hint=t(idle.REFUSED[key])))
    return tuple(sorted(key for key, value in found.items() if idle.differs(key, value)))


def _take_unknown(
    data: dict[str, Any], document: Document, problems: list[BetterSynthError], operators: tuple[str, ...]
) -> None:
    """Report keys that are neither ours nor Data-Juicer's, with the nearest one of both.

    ``OPERATOR.param=value`` for an operator that the recipe does not have arrives here as a key that holds a mapping.
    """
    known = [*field_names(RecipeKeys), *idle.idle_keys()]
    for key in [key for key in data if key not in known]:
        is_step = isinstance(data.pop(key), dict) and operators
        where, hint, expected = document.where((key,)), did_you_mean(key, known), None
        if is_step:
            near = difflib.get_close_matches(key, operators, n=1, cutoff=0.8)
            hint = did_you_mean(key, near) or t("add {name} to the process list", name=key)
            expected = t("one of: {names}", names=", ".join(dict.fromkeys(operators)))
        error = ConfigError(t("unknown key '{name}'", name=key), where=where, expected=expected, hint=hint)
        problems.append(error)


def _idle_notices(ignored: Iterable[str]) -> list[str]:
    """One sentence per reason, with the keys it is about."""
    grouped: dict[str, list[str]] = {}
    for key in ignored:
        grouped.setdefault(idle.reason(key), []).append(key)
    return [t("without effect here: {names} ({why})", names=", ".join(k), why=t(why)) for why, k in grouped.items()]


def _differences(keys: RecipeKeys, data: Mapping[str, Any]) -> list[str]:
    """Sentences about keys that are honoured in another way than Data-Juicer does."""
    found = []
    if any("." in key for key in keys.all_text_keys):
        found.append(t("text_keys with a dot: a rewritten text stays in its nested place; no new column is made"))
    if "skip_op_error" in data:
        found.append(
            t("skip_op_error: a row that fails is set aside alone in quarantine.jsonl, never with its batch")
            if keys.skip_op_error
            else t("skip_op_error: false stops the run when any row has failed, and lists all failed rows")
        )
    if keys.keep_hashes_in_res_ds:
        found.append(t("keep_hashes_in_res_ds: hashes stay in the cache and are not written to the rows"))
    unknown = sorted(set(keys.load_dataset_kwargs) - {"delimiter", "sep", "columns"})
    if unknown:
        names = ", ".join(f"load_dataset_kwargs.{key}" for key in unknown)
        found.append(t("without effect here: {names} ({why})", names=names, why=t("files are read by our own readers")))
    others = sorted({validator.type for validator in keys.validators} - {"required_fields"})
    if others:
        found.append(t("validators not run here: {names}", names=", ".join(others)))
    sources = keys.dataset.configs if keys.dataset is not None else ()
    unread = [key for key in _UNREAD if any(getattr(source, key) is not None for source in sources)]
    if unread:
        why = t("a source is read by its path alone")
        found.append(t("without effect here: {names} ({why})", names=", ".join(unread), why=why))
    if keys.dataset is not None and keys.dataset.max_sample_num is None:
        if len({source.weight for source in keys.dataset.configs}) > 1:
            found.append(t("weights choose rows only together with dataset.max_sample_num; all rows are read"))
    elif len({part.weight for part in mixture(keys.dataset_path)}) > 1:
        found.append(t("weights choose rows only together with dataset.max_sample_num; all rows are read"))
    return found


def _expand_operator_overrides(document: Document, overrides: Iterable[str]) -> list[str]:
    """``text_length_filter.min_len=5`` becomes ``process.N.text_length_filter.min_len=5``, as Data-Juicer allows."""
    process = document.data.get("process")
    places: dict[str, int] = {}
    for number, entry in enumerate(_entries(document.data)):
        if isinstance(process, list) and isinstance(process[number], str):
            process[number] = {process[number]: None}
        for name in entry:
            places.setdefault(str(name), number)
    expanded = []
    for override in overrides:
        head, dot, _ = override.partition("=")[0].partition(".")
        expanded.append(f"process.{places[head]}.{override}" if dot and head in places else override)
    return expanded


def _entries(data: Mapping[str, Any]) -> list[list[str]]:
    """The operator names of each entry of the process list; none for what is no entry."""
    process = data.get("process")
    listed = process if isinstance(process, list) else []
    return [[item] if isinstance(item, str) else [*map(str, item)] if isinstance(item, dict) else [] for item in listed]


def _variables(data: Mapping[str, Any], given: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Values by name: those given, the budget, and the recipe's own, which may use the ones before them.

    Of a list the first path that exists is taken (the last one when none does), so that one recipe serves the real
    models of one folder and the tiny ones of another.
    """
    values: dict[str, Any] = {}
    for name in ("budget", "seed"):
        if isinstance(data.get(name), int):
            values[name] = data[name]
    values |= _places(data) | dict(given)
    own = data.get("vars")
    for key, value in own.items() if isinstance(own, dict) else ():
        if key in given or value is None:
            continue
        choices = [
            _VARIABLE.sub(lambda match: str(values.get(match.group(1), match.group())), str(item))
            for item in (value if isinstance(value, list) else [value])
        ]
        there = [choice for choice in choices if Path(choice).exists() or (base / choice).exists()]
        if isinstance(value, list):
            values[key] = (there or choices[-1:] or [""])[0]
        else:
            values[key] = choices[0] if isinstance(value, str) else value
    return values


def _places(data: Mapping[str, Any]) -> dict[str, str]:
    """``{job_id}`` and ``{work_dir}``, which Data-Juicer recipes use in paths; the same for the same recipe."""
    job = str(data.get("job_id") or digest_json(dict(data))[:12])
    export = str(data.get("export_path") or "")
    beside = str(Path(export).parent) if export and "{" not in export else "outputs"
    work = str(data.get("work_dir") or beside).replace("{job_id}", job)
    return {"job_id": job, "work_dir": work if job in Path(work).parts else f"{work}/{job}"}


def _fill(
    value: Any,
    values: Mapping[str, Any],
    document: Document,
    at: tuple[str | int, ...],
    problems: list[BetterSynthError],
) -> Any:
    """Replace ``{name}``; a string that is nothing but one variable takes the variable's own type."""
    if isinstance(value, dict):
        return {key: _fill(item, values, document, (*at, str(key)), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, values, document, (*at, number), problems) for number, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    missing = [name for name in _VARIABLE.findall(value) if name not in values]
    for name in missing:
        problems.append(
            ConfigError(
                t("no value for the variable '{name}'", name=name),
                where=document.where(at),
                got=value,
                hint=did_you_mean(name, values) or t("give it under vars: or with --set vars.{name}=VALUE", name=name),
            )
        )
    if missing:
        return value
    whole = _VARIABLE.fullmatch(value)
    return values[whole.group(1)] if whole else _VARIABLE.sub(lambda match: str(values[match.group(1)]), value)


def _steps(process: Any, document: Document, problems: list[BetterSynthError]) -> tuple[Step, ...]:
    steps = []
    if not isinstance(process, list):
        problems.append(
            ConfigError(t("process must be a list"), where=document.where(("process",)), got=type(process).__name__)
        )
        return ()
    for number, item in enumerate(process):
        where = document.where(("process", number))
        entry = {item: None} if isinstance(item, str) else item
        if not isinstance(entry, dict) or len(entry) != 1:
            problems.append(
                ConfigError(
                    t("each step is one operator with its parameters"),
                    where=where,
                    got=item,
                    expected="- operator_name: {parameter: value}",
                )
            )
            continue
        name, params = next(iter(entry.items()))
        if params is not None and not isinstance(params, dict):
            problems.append(
                ConfigError(
                    t("parameters must be a mapping"), where=document.where(("process", number, str(name))), got=params
                )
            )
            continue
        params = dict(params or {})
        if params.get("index_key") is not None:
            steps.append(Step("row_number_selector", {"key": params["index_key"]}, number, where))
        params.pop("index_key", None)
        steps.append(Step(str(name), params, number, where))
    return tuple(steps)
