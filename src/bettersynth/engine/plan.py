"""From a recipe to what will happen: checked operators, stages, and the reason for each cut. Touches nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bettersynth.config.load import Document, check, raise_all
from bettersynth.config.recipe import Recipe, Step, Track, load_recipe
from bettersynth.core.errors import BetterSynthError, ConfigError, RuleError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.engine.custom import register_custom
from bettersynth.engine.keys import model_digest, phase_key
from bettersynth.engine.phase import Phase, PhaseKind
from bettersynth.engine.renamed import OLD_PARAMETERS, current_name
from bettersynth.ops._catalog import OPERATORS, REPLACED, operator_class
from bettersynth.ops.base import (
    STATS,
    Filter,
    FittedFilter,
    Generator,
    GlobalOperator,
    Mapper,
    Operator,
    RangeFilter,
)

# Keys that Data-Juicer accepts on every operator and that only steer its own machinery.
_STEP_NO_EFFECT = frozenset(
    """
    skip_op_error batch_mode batch_size accelerator num_proc turbo num_cpus num_gpus memory cpu_required gpu_required
    mem_required runtime_env ray_execution_mode auto_op_parallelism adaptive_batching work_dir stats_export_path
    gpu_batch_size trust_remote_code audio_key video_key image_bytes_key system_key instruction_key query_key
    response_key history_key input_columns output_columns
    """.split()  # noqa: SIM905
)
_STEP_COLUMNS = {"text_key": "text_keys", "image_key": "image_key"}
_OWN_COLUMNS = (Mapper, Filter, GlobalOperator)


@dataclass(frozen=True)
class Stage:
    """Phases that run on a shard without writing in between, and why the stage ends."""

    number: int
    phases: tuple[Phase, ...]
    ends: str
    pixels: bool
    models: bool

    @property
    def reduces(self) -> Phase | None:
        """The global operator that decides after this stage, if any."""
        last = self.phases[-1] if self.phases else None
        return last if last is not None and last.kind == "partial" else None

    def key(self, upstream: str) -> str:
        """Cache key of one shard's result, given the key of what it is made from."""
        return digest_json([upstream, [phase.key for phase in self.phases]])


@dataclass(frozen=True)
class PlannedStep:
    """One line of a plan for people; stages count from 1."""

    stage: int
    operator: str
    params: Mapping[str, Any]
    note: str


@dataclass(frozen=True)
class Plan:
    """What a recipe will do. ``digest`` names operators, parameters and models, not places."""

    recipe: Recipe
    operators: tuple[Operator, ...]
    stages: tuple[Stage, ...]
    digest: str
    notices: tuple[str, ...] = ()

    def describe(self) -> list[PlannedStep]:
        """One entry per phase group, with why a stage ends where it does."""
        lines = []
        for stage in self.stages:
            if stage.phases and all(phase.kind in ("keep", "verdict") for phase in stage.phases):
                name = unwrap(stage.phases[-1].operator).name  # a stage of its own only to carry out a decision
                lines.append(PlannedStep(stage.number + 1, name, {}, t("drops or repeats rows as decided")))
            for phase in stage.phases:
                if phase.kind in ("keep", "verdict"):
                    continue
                operator = unwrap(phase.operator)
                params = {
                    field.name: getattr(operator, field.name)
                    for field in dataclasses.fields(operator)
                    if getattr(operator, field.name) != field.default
                }
                last = phase is stage.phases[-1]
                lines.append(
                    PlannedStep(stage.number + 1, operator.name, params, stage.ends if last else t("same pass"))
                )
        return lines


def read_recipe(
    path: Path,
    *,
    overrides: Iterable[str] = (),
    variables: Mapping[str, str | int | float] | None = None,
    check_recipe: Callable[[Recipe], list[BetterSynthError]] | None = None,
) -> Recipe:
    """Read a recipe file and check it against the operators; all mistakes are reported together.

    Args:
        check_recipe: more checks whose findings join the others, e.g. :func:`bettersynth.engine.preflight.preflight`.

    Raises:
        ConfigError, ConfigErrors: with line numbers and nearest names.
    """
    return load_recipe(
        path, overrides=overrides, variables=variables, check_steps=check_steps, check_recipe=check_recipe
    )


def check_steps(steps: tuple[Step, ...], document: Document) -> list[BetterSynthError]:
    """Everything that is wrong with the process list. Operators of the recipe's own files are registered first."""
    custom = register_custom(document)
    known = [step for step in steps if step.operator in OPERATORS or not custom.may_hold(step.operator)]
    return [*custom.problems, *(problem for step in known for problem in build_operator(step, document)[1])]


def build_operator(step: Step, document: Document) -> tuple[Operator | None, list[BetterSynthError]]:
    """The operator of one step, or None and what is wrong with it."""
    name = step.operator if step.operator in OPERATORS else current_name(step.operator)
    if name not in OPERATORS:
        return None, [_unknown(step)]
    cls = operator_class(name)
    known = {field.name for field in dataclasses.fields(cls)}
    at = ("process", step.position, step.operator)
    problems: list[BetterSynthError] = []
    params = {}
    for name, value in step.params.items():
        if name == "prompt_key" and value is None:
            continue
        if name in known or (name not in _STEP_COLUMNS and not _is_idle(step.operator, name)):
            params[name] = value
        elif name in _STEP_COLUMNS and not issubclass(cls, _OWN_COLUMNS):
            if value in (None, _usual_column(name, document)):
                continue
            problems.append(
                ConfigError(
                    t("a column of its own is not supported for this kind of operator"),
                    where=document.where((*at, name)),
                    got=value,
                    hint=t("set {key} for the whole recipe", key=_STEP_COLUMNS[name]),
                )
            )
    operator, found = check(cls, params, document, at)
    problems.extend(found)
    if operator is not None and not problems:
        try:
            operator.check()
        except ValueError as error:
            problems.append(ConfigError(t("parameters not accepted"), where=document.where(at), got=str(error)))
        except BetterSynthError as error:
            error.where = document.where(at)
            problems.append(error)
    return (None if problems else operator), problems


def _is_idle(operator: str, name: str) -> bool:
    """Whether a parameter steers Data-Juicer's machinery, or belongs to an older version of it."""
    old = (*OLD_PARAMETERS[""], *OLD_PARAMETERS.get(operator, ()))
    return name in _STEP_NO_EFFECT or name in old


def _usual_column(name: str, document: Document) -> Any:
    usual = document.data.get(_STEP_COLUMNS[name]) or ("text" if name == "text_key" else "images")
    return usual[0] if isinstance(usual, list) else usual


def own_columns(step: Step, operator: Operator, document: Document) -> dict[str, str]:
    """The columns that this step alone sees as its text and pictures, if it names others than the recipe does."""
    if not isinstance(unwrap(operator), _OWN_COLUMNS):
        return {}
    named = {name: step.params.get(name) for name in _STEP_COLUMNS}
    known = {field.name for field in dataclasses.fields(unwrap(operator))}
    return {
        name: str(value)
        for name, value in named.items()
        if value is not None and name not in known and value != _usual_column(name, document)
    }


def _unknown(step: Step) -> BetterSynthError:
    if step.operator in REPLACED:
        return ConfigError(
            t("unknown {kind} '{name}'", kind="operator", name=step.operator),
            where=step.where,
            hint=t("use '{name}' in its place", name=REPLACED[step.operator]),
        )
    try:
        OPERATORS.check(step.operator, where=step.where)
    except ConfigError as error:
        return error
    raise AssertionError("unreachable: the caller has looked the name up")


def unwrap(operator: Operator) -> Operator:
    """The operator as the recipe names it."""
    return operator.inner if isinstance(operator, FittedFilter) else operator


def plan(recipe: Recipe, *, scores_only: bool = False) -> Plan:
    """Check the operators, the track and the models, and cut the process list into stages.

    Args:
        scores_only: filters compute their stats and drop nothing.

    Raises:
        ConfigError, ConfigErrors: wrong operators or parameters, missing model folders.
        RuleError: operators that the challenge track does not allow.
    """
    operators: list[Operator] = []
    problems: list[BetterSynthError] = list(register_custom(recipe.document).problems)
    for step in recipe.steps:
        operator, found = build_operator(step, recipe.document)
        problems.extend(found)
        if operator is not None:
            if scores_only and isinstance(operator, Filter):
                pass
            elif isinstance(operator, RangeFilter) and (operator.adaptive_threshold is not None or operator.mark_only):
                operator = FittedFilter(inner=operator)
            operators.append(operator)
    if not problems:
        problems.extend(_missing_columns(recipe.steps, operators))
        digests, missing = _digests(recipe, operators)
        problems.extend(missing)
    raise_all(problems, where=recipe.document.name)
    check_track(recipe.keys.track, [unwrap(operator) for operator in operators], recipe)
    columns = [own_columns(s, o, recipe.document) for s, o in zip(recipe.steps, operators, strict=True)]
    stages = _cut(operators, columns, digests, recipe.keys.seed)
    if scores_only:
        stages = tuple(_without_keep(stage) for stage in stages)
    digest = digest_json([[phase.key for phase in stage.phases] for stage in stages])
    return Plan(recipe, tuple(operators), stages, digest, (*recipe.notices, *_idle_in_steps(recipe)))


def _without_keep(stage: Stage) -> Stage:
    """The stage with its filters' decisions left out."""
    phases = [
        replace(phase, kind="score", key=digest_json([phase.key, "score"])) if phase.kind == "score_keep" else phase
        for phase in stage.phases
        if phase.kind != "keep"
    ]
    return replace(stage, phases=tuple(phases))


def _idle_in_steps(recipe: Recipe) -> list[str]:
    found = [
        t("{old} is served as {new}", old=name, new=current_name(name))
        for name in dict.fromkeys(step.operator for step in recipe.steps)
        if name not in OPERATORS
    ]
    names = {name for step in recipe.steps for name in step.params if _is_idle(step.operator, name)}
    return found + ([t("in steps, without effect here: {names}", names=", ".join(sorted(names)))] if names else [])


def _digests(recipe: Recipe, operators: Sequence[Operator | None]) -> tuple[dict[str, str], list[BetterSynthError]]:
    """Digest of every model folder that is used, and the ones that are not there, each told once.

    An operator that is None was itself wrong, which is told elsewhere.
    """
    digests: dict[str, str] = {}
    missing: dict[str, BetterSynthError] = {}
    for step, operator in zip(recipe.steps, operators, strict=True):
        inner = unwrap(operator) if operator is not None else None
        for field in inner.models if inner is not None else ():
            folder = getattr(inner, field)
            if folder is None:
                continue
            try:
                digests.setdefault(folder, model_digest(folder))
            except BetterSynthError as error:
                where = recipe.document.where(("process", step.position, step.operator, field))
                first = missing.setdefault(folder, error)
                first.where = where if first is error else t("{where}, and {other}", where=first.where, other=where)
    return digests, list(missing.values())


def check_models_and_columns(recipe: Recipe) -> list[BetterSynthError]:
    """Model folders that are not there, and stats that no step writes (only when no operator itself is wrong)."""
    operators = [build_operator(step, recipe.document)[0] for step in recipe.steps]
    models = _digests(recipe, operators)[1]
    built = [operator for operator in operators if operator is not None]
    return models if len(built) < len(operators) else _missing_columns(recipe.steps, built) + models


def _missing_columns(steps: tuple[Step, ...], operators: list[Operator]) -> list[BetterSynthError]:
    """Operators that read a stat which no step before them writes."""
    problems: list[BetterSynthError] = []
    written: set[str] = set()
    for step, operator in zip(steps, operators, strict=True):
        inner = unwrap(operator)
        for column in inner.needs():
            if column.startswith(STATS) and column not in written:
                problems.append(
                    ConfigError(
                        t("{name} reads {column}, which no step before it writes", name=inner.name, column=column),
                        where=step.where,
                        got=", ".join(sorted(written)) or t("nothing"),
                        hint=t("put the filter that computes it before this step; without bounds it only scores"),
                    )
                )
        written.update(column for column in inner.adds() if column.startswith(STATS))
    return problems


def check_track(track: Track, operators: list[Operator], recipe: Recipe) -> None:
    """Refuse operators that make what the locked conversion does not let through.

    Raises:
        RuleError: on the challenge track, with one reason per operator.
    """
    if track == "open":
        return
    reasons = [
        t("{where}: {name} may add ids, questions or turns", where=step.where, name=operator.name)
        for step, operator in zip(recipe.steps, operators, strict=True)
        if operator.track == "open"
    ]
    if reasons:
        raise RuleError(
            t("the challenge track may only choose, drop and repeat rows and rewrite answers or pictures"),
            reasons,
            hint=t("write track: open, or leave these operators out"),
        )


def _phases(
    step: int, operator: Operator, columns: Mapping[str, str], digests: Mapping[str, str], seed: int
) -> list[tuple[Phase, str]]:
    """(phase, why a stage must end after it or empty) for one operator."""

    def phase(kind: PhaseKind) -> Phase:
        inner = unwrap(operator)
        deciding = getattr(inner, "keep_params", ()) if kind in ("score", "partial") else ()
        key = phase_key(kind, inner, digests, seed, without=deciding)
        score_key = ""
        if kind in ("score", "score_keep"):
            score_key = phase_key("score", inner, digests, seed, without=getattr(inner, "keep_params", ()))
        if columns:
            key, score_key = digest_json([key, columns]), digest_json([score_key, columns])
        return Phase(step, kind, operator, key, **columns, score_key=score_key, has_models=has_models)

    has_models = _uses_models(unwrap(operator))
    model_cut = t("model results are kept") if has_models else ""
    if isinstance(operator, GlobalOperator):
        return [(phase("partial"), t("needs all rows")), (phase("verdict"), "")]
    if isinstance(operator, Generator):
        return [(phase("make"), model_cut)]
    if isinstance(operator, Filter):
        if has_models:
            return [(phase("score"), t("scores are kept, so thresholds can change")), (phase("keep"), "")]
        return [(phase("score_keep"), "")]
    return [(phase("apply"), model_cut)]


def _uses_models(operator: Operator) -> bool:
    return any(getattr(operator, name) is not None for name in operator.models)


def _cut(
    operators: list[Operator], columns: list[dict[str, str]], digests: Mapping[str, str], seed: int
) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    current: list[Phase] = []

    def close(why: str) -> None:
        inner = [unwrap(phase.operator) for phase in current if phase.kind not in ("keep", "verdict")]
        models = any(_uses_models(operator) for operator in inner)
        pixels = models or any(operator.pixels for operator in inner)
        stages.append(Stage(len(stages), tuple(current), why, pixels, models))
        current.clear()

    for step, operator in enumerate(operators):
        only_texts = all(phase.kind == "apply" and not unwrap(phase.operator).pixels for phase in current)
        if isinstance(operator, Filter) and current and only_texts:
            close(t("rewritten rows are kept, so thresholds can change"))
        for phase, why in _phases(step, operator, columns[step], digests, seed):
            current.append(phase)
            if why:
                close(why)
    if current or not stages:
        close(t("last"))
    return tuple(stages)
