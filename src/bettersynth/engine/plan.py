"""From a recipe to what will happen: checked operators, stages, and the reason for each cut. Touches nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.config.load import Document, check, raise_all
from bettersynth.config.recipe import Recipe, Step, Track, load_recipe
from bettersynth.core.errors import BetterSynthError, ConfigError, RuleError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.engine.keys import model_digest, phase_key
from bettersynth.engine.phase import Phase, PhaseKind
from bettersynth.ops._catalog import OPERATORS, REPLACED, operator_class
from bettersynth.ops.base import STATS, Filter, FittedFilter, Generator, GlobalOperator, Operator, RangeFilter

# Keys that Data-Juicer accepts on every operator and that only steer its own machinery.
_STEP_NO_EFFECT = frozenset(
    """
    skip_op_error batch_mode batch_size accelerator num_proc turbo num_cpus num_gpus memory cpu_required gpu_required
    mem_required runtime_env ray_execution_mode auto_op_parallelism adaptive_batching work_dir stats_export_path
    gpu_batch_size trust_remote_code
    """.split()  # noqa: SIM905
)
_STEP_COLUMNS = {"text_key": "text_keys", "image_key": "image_key"}


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
    """One line of a plan for people."""

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
                lines.append(PlannedStep(stage.number, operator.name, params, stage.ends if last else t("same pass")))
        return lines


def read_recipe(
    path: Path, *, overrides: Iterable[str] = (), variables: Mapping[str, str | int | float] | None = None
) -> Recipe:
    """Read a recipe file and check it against the operators; all mistakes are reported together.

    Raises:
        ConfigError, ConfigErrors: with line numbers and nearest names.
    """
    return load_recipe(path, overrides=overrides, variables=variables, check_steps=check_steps)


def check_steps(steps: tuple[Step, ...], document: Document) -> list[BetterSynthError]:
    """Everything that is wrong with the process list."""
    return [problem for step in steps for problem in build_operator(step, document)[1]]


def build_operator(step: Step, document: Document) -> tuple[Operator | None, list[BetterSynthError]]:
    """The operator of one step, or None and what is wrong with it."""
    if step.operator not in OPERATORS:
        return None, [_unknown(step)]
    cls = operator_class(step.operator)
    known = {field.name for field in dataclasses.fields(cls)}
    at = ("process", step.position, step.operator)
    problems: list[BetterSynthError] = []
    params = {}
    for name, value in step.params.items():
        if name in _STEP_COLUMNS and name not in known:
            allowed = document.data.get(_STEP_COLUMNS[name], "text" if name == "text_key" else "images")
            if value not in (allowed, *(allowed[:1] if isinstance(allowed, list) else ())):
                problems.append(
                    ConfigError(
                        t("a column for one operator alone is not supported"),
                        where=document.where((*at, name)),
                        got=value,
                        hint=t("set {key} for the whole recipe", key=_STEP_COLUMNS[name]),
                    )
                )
        elif name in known or name not in _STEP_NO_EFFECT:
            params[name] = value
    operator, found = check(cls, params, document, at)
    problems.extend(found)
    if operator is not None and not problems:
        try:
            operator.check()
        except ValueError as error:
            problems.append(ConfigError(t("parameters not accepted"), where=document.where(at), got=str(error)))
    return (None if problems else operator), problems


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


def plan(recipe: Recipe) -> Plan:
    """Check the operators, the track and the models, and cut the process list into stages.

    Raises:
        ConfigError, ConfigErrors: wrong operators or parameters, missing model folders.
        RuleError: operators that the challenge track does not allow.
    """
    operators: list[Operator] = []
    problems: list[BetterSynthError] = []
    for step in recipe.steps:
        operator, found = build_operator(step, recipe.document)
        problems.extend(found)
        if operator is not None:
            if isinstance(operator, RangeFilter) and (operator.adaptive_threshold is not None or operator.mark_only):
                operator = FittedFilter(inner=operator)
            operators.append(operator)
    problems.extend(_missing_columns(recipe.steps, operators) if not problems else ())
    raise_all(problems, where=recipe.document.name)
    check_track(recipe.keys.track, [unwrap(operator) for operator in operators], recipe)
    digests: dict[str, str] = {}
    for step, operator in zip(recipe.steps, operators, strict=True):
        for field in unwrap(operator).models:
            folder = getattr(unwrap(operator), field)
            if folder is None:
                continue
            try:
                digests.setdefault(folder, model_digest(folder))
            except BetterSynthError as error:
                error.where = recipe.document.where(("process", step.position, step.operator, field))
                problems.append(error)
    raise_all(problems, where=recipe.document.name)
    stages = _cut(operators, digests, recipe.keys.seed)
    notices = [t("accepted, without effect here: {names}", names=", ".join(recipe.ignored))] if recipe.ignored else []
    digest = digest_json([[phase.key for phase in stage.phases] for stage in stages])
    return Plan(recipe, tuple(operators), stages, digest, tuple(notices))


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
        t("{where}: {name} adds ids, questions or turns", where=step.where, name=operator.name)
        for step, operator in zip(recipe.steps, operators, strict=True)
        if operator.track == "open"
    ]
    if reasons:
        raise RuleError(
            t("the challenge track may only choose, drop and repeat rows and rewrite answers or pictures"),
            reasons,
            hint=t("write track: open, or leave these operators out"),
        )


def _phases(step: int, operator: Operator, digests: Mapping[str, str], seed: int) -> list[tuple[Phase, str]]:
    """(phase, why a stage must end after it or empty) for one operator."""

    def phase(kind: PhaseKind) -> Phase:
        inner = unwrap(operator)
        deciding = getattr(inner, "keep_params", ()) if kind in ("score", "partial") else ()
        return Phase(step, kind, operator, phase_key(kind, inner, digests, seed, without=deciding))

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


def _cut(operators: list[Operator], digests: Mapping[str, str], seed: int) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    current: list[Phase] = []

    def close(why: str) -> None:
        inner = [unwrap(phase.operator) for phase in current if phase.kind not in ("keep", "verdict")]
        models = any(_uses_models(operator) for operator in inner)
        pixels = models or any(operator.pixels for operator in inner)
        stages.append(Stage(len(stages), tuple(current), why, pixels, models))
        current.clear()

    for step, operator in enumerate(operators):
        for phase, why in _phases(step, operator, digests, seed):
            current.append(phase)
            if why:
                close(why)
    if current or not stages:
        close(t("last"))
    return tuple(stages)
