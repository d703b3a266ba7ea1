"""What an evaluation asks and how: benchmarks, data folder, decoding, resampling. Unknown keys are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from bettersynth.config.load import apply_overrides, load_yaml, validate
from bettersynth.core.decoding import Decoding


class DecodingConfig(BaseModel):
    """How answers are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_new_tokens: int | None = Field(default=None, ge=1)
    """Answers are cut after so many tokens; the task's own number (TextVQA 128, MMBench 1024) when not given."""
    do_sample: bool = False
    """Draw tokens at random instead of the likeliest."""
    num_beams: int = Field(default=1, ge=1)
    """Beams kept."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits when sampling."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Probability mass to sample from."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws."""

    @property
    def is_set(self) -> bool:
        """True when something was given; otherwise every task keeps its own answer length, greedily."""
        return self != DecodingConfig()

    def build(self) -> Decoding:
        """The settings for all tasks; answers of at most 1024 tokens when no length was given."""
        return Decoding(**{**self.model_dump(), "max_new_tokens": self.max_new_tokens or 1024})


class EvalConfig(BaseModel):
    """One evaluation of one checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: tuple[str, ...] = Field(default=("textvqa", "mmbench"), min_length=1)
    """Prompt protocols (textvqa-noocr, mmbench@kit, ...); a task's name alone means all its protocols."""
    data: Path = Path("toolkit/eval")
    """Folder that holds textvqa/ and mmbench/."""
    batch_size: int = Field(default=16, ge=1)
    """Questions per call of the model."""
    limit: int | None = Field(default=None, ge=1)
    """Ask only the first so many questions, each with all its rotations."""
    decoding: DecodingConfig = DecodingConfig()
    """How answers are drawn; greedy by default."""
    resamples: int = Field(default=2000, ge=200)
    """Bootstrap resamples of the intervals."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence level of the intervals."""
    seed: int = Field(default=0, ge=0)
    """Seed of the resampling."""


def load_eval(path: Path, overrides: Sequence[str] = ()) -> EvalConfig:
    """Read ``eval.yaml``.

    Raises:
        ConfigError, ConfigErrors: every unknown key and wrong value, with its line.
    """
    return validate(EvalConfig, apply_overrides(load_yaml(path), overrides))
