"""What a submission must hold: the tracks' packing rules, and the small document a user may write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bettersynth.config.load import check, load_yaml, raise_all
from bettersynth.core.errors import ConfigError, RuleError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean


@dataclass(frozen=True)
class TrackRules:
    """Where a track's fixed inputs lie in a kit, and what its zip must hold.

    Args:
        seed: name of the seed set's folder below ``input``.
        instruct: name of the instruction data's folder below ``toolkit/training/data``.
        max_samples: stage-1 samples at most; 0: no limit of its own.
        needs_data: processed data (and synthetic images) belong into the zip.
        needs_weights: checkpoints belong into the zip.
        is_challenge: entries of this track can be uploaded.
        needs_start: training continues from a ranked model (``init_from``).
    """

    name: str
    seed: str
    instruct: str
    max_samples: int
    needs_data: bool = False
    needs_weights: bool = False
    is_challenge: bool = True
    needs_start: bool = False

    @property
    def seed_file(self) -> str:
        """The seed set in Data-Juicer form, relative to the kit."""
        return f"input/{self.seed}/mgm_{self.seed}.jsonl"

    @property
    def questions_file(self) -> str:
        """The seed set with its original questions, relative to the kit."""
        return f"input/{self.seed}/stage_1.json"

    @property
    def instruct_file(self) -> str:
        """The fixed stage-2 data, relative to the kit."""
        name = self.instruct.replace("finetuning", "mgm_instruction")
        return f"toolkit/training/data/{self.instruct}/{name}.json"


TRACKS = {
    rules.name: rules
    for rules in (
        TrackRules("online", "pretrain_stage_1", "finetuning_stage_1", 200_000),
        TrackRules(
            "final",
            "pretrain_stage_1_10k",
            "finetuning_stage_1_12k",
            5_000,
            needs_data=True,
            needs_weights=True,
            needs_start=True,
        ),
        TrackRules("10k", "pretrain_stage_1_10k", "finetuning_stage_1_12k", 10_000),
        TrackRules(
            "demo",
            "pretrain_stage_1_demo",
            "finetuning_stage_1_demo",
            0,
            needs_data=True,
            needs_weights=True,
            is_challenge=False,
        ),
        TrackRules("open", "pretrain_stage_1_10k", "finetuning_stage_1_12k", 0, is_challenge=False),
    )
}


def track_rules(name: str) -> TrackRules:
    """The rules of a track.

    Raises:
        ConfigError: no such track.
    """
    if name not in TRACKS:
        raise ConfigError(
            t("unknown track '{name}'", name=name), expected=", ".join(TRACKS), hint=did_you_mean(name, TRACKS)
        )
    return TRACKS[name]


def packable_rules(name: str) -> TrackRules:
    """The rules of a track that has a submission form.

    Raises:
        RuleError: the open track has none.
        ConfigError: no such track.
    """
    rules = track_rules(name)
    if name == "open":
        raise RuleError(
            t("the open track is no challenge track, so there is nothing to submit"),
            [t("added questions, LoRA and other hyper-parameters are outside the challenge's rules")],
            hint=t(
                "share the report instead, or train on a challenge track: {names}", names="online, final, 10k, demo"
            ),
        )
    return rules


class SubmissionConfig(BaseModel):
    """A user's submission document. Everything else is read from what was trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    track: Literal["online", "final", "10k", "demo", "open"]
    """Whose rules apply."""
    workspace: Path = Path()
    """The kit folder."""
    out: Path = Path("submit")
    """Folder that gets submit.zip; relative to the workspace."""
    exclude: tuple[str, ...] = Field(())
    """Patterns of files in solution/ that stay out of the zip, e.g. ``notes/*``."""


def load_submission(path: Path) -> SubmissionConfig:
    """Read a submission document.

    Raises:
        ConfigError, ConfigErrors: unreadable, unknown keys or wrong values, with their lines.
    """
    document = load_yaml(path)
    config, problems = check(SubmissionConfig, document.data, document)
    raise_all(problems, where=document.name)
    assert config is not None  # check() returns a value or problems, and problems have been raised
    return config
