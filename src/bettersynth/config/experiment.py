"""What an experiment compares: conditions x seeds under one budget, on which benchmarks, against which baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bettersynth.config.eval import DecodingConfig
from bettersynth.config.load import apply_overrides, load_yaml, validate

Role = Literal["baseline", "strategy", "open", "reference"]
"""open: outside the challenge's rules, may spend another budget. reference: a ceiling or control, never ranked."""


class Condition(BaseModel):
    """One row of the comparison."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in tables and folders."""
    strategy: str | None = None
    """Data strategy: a name in experiment/strategies or a recipe file; the condition's name when not given."""
    is_reseeded: bool = False
    """Make the data anew with every trial's seed, for random selections; it is made once otherwise."""
    role: Role = "strategy"
    """What the row is: baseline, strategy, open, or reference."""
    training: dict[Literal["pretrain", "finetune"], dict[str, Any]] = {}
    """Training keys that this row changes, per stage, e.g. ``finetune: {techniques: {ema: {}}}``. The preset must be an
    open one; samples and batches stay those of the others."""
    note: str = ""
    """Printed under the table, e.g. what hidden information a reference row uses."""


class ExperimentConfig(BaseModel):
    """Conditions x seeds under one training preset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "experiment"
    """Name of the result."""
    workspace: Path = Path()
    """Kit folder with seed data, models and evaluation data."""
    preset: str = "demo"
    """Training preset; fixes the budget of both stages for every condition."""
    seeds: tuple[int, ...] = Field(default=(1, 2, 3, 4, 5), min_length=1)
    """One training per condition and seed. One seed says little: five or more are advised."""
    conditions: tuple[Condition, ...] = Field(min_length=1)
    """The rows of the comparison."""
    baseline: str | None = None
    """Condition that the others are compared with; the one with the role baseline when not given."""
    tasks: tuple[str, ...] = Field(default=("textvqa", "mmbench"), min_length=1)
    """Prompt protocols, as in an evaluation."""
    split: Literal["eval", "dev"] = "eval"
    """eval: toolkit/eval, looked at once. dev: toolkit/eval_dev, for tuning."""
    limit: int | None = Field(default=None, ge=1)
    """Ask only the first so many questions."""
    decoding: DecodingConfig = DecodingConfig()
    """How answers are drawn."""
    batch_size: int = Field(default=32, ge=1)
    """Questions per call of the model."""
    workers: int = Field(default=1, ge=1)
    """Trials run at the same time, each with one thread."""
    resamples: int = Field(default=2000, ge=200)
    """Bootstrap resamples."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """A difference is called better or worse when its Holm-corrected p-value is below this."""

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentConfig:
        names = [condition.name for condition in self.conditions]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"conditions named twice: {', '.join(twice)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is written twice")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline '{self.baseline}' is not one of the conditions: {', '.join(names)}")
        if sum(condition.role == "baseline" for condition in self.conditions) > 1:
            raise ValueError("more than one condition has the role baseline")
        return self

    @property
    def baseline_name(self) -> str:
        """The condition that the others are compared with: the named one, the one with that role, or the first."""
        if self.baseline is not None:
            return self.baseline
        return next((c.name for c in self.conditions if c.role == "baseline"), self.conditions[0].name)

    def condition(self, name: str) -> Condition:
        """The condition of that name."""
        return next(condition for condition in self.conditions if condition.name == name)


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read ``experiment.yaml``.

    Raises:
        ConfigError, ConfigErrors: every unknown key and wrong value, with its line.
    """
    return validate(ExperimentConfig, apply_overrides(load_yaml(path), overrides))
