"""Easy samples first. Every sample is still shown as often as without it; only when it is shown changes.

Source: Bengio et al., "Curriculum Learning" (2009).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.formats.jsonl import read_rows
from bettersynth.train.technique import Technique, TechniqueRun, start_losses


class Settings(BaseModel):
    """Keys of ``curriculum``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["length", "score", "loss"] = "length"
    """What makes a sample hard: its tokens, a field of its record, or its loss under the model at the start."""
    field: str = ""
    """With ``by: score``: the field of the record; a smaller number is easier."""
    buckets: int = Field(4, ge=2)
    """Into how many levels the samples are divided; inside a level the order stays as drawn."""
    passes: int = Field(1, ge=1)
    """How many passes over the data go from easy to hard; later ones are in plain order."""

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if (self.by == "score") != bool(self.field):
            raise ValueError(t("by: score and field belong together"))
        return self


class Curriculum(Technique):
    """Sorts each pass into levels. With steps of one modality (``group_by_modality_length``) whole steps are sorted."""

    is_lockstep = True

    def __init__(self, settings: Settings, run: TechniqueRun) -> None:
        super().__init__(settings, run)
        self._difficulty: torch.Tensor | None = None

    def order(self, order: list[int]) -> list[int]:
        """Passes from easy to hard."""
        if self._difficulty is None:
            self._difficulty = self._measure()
        hardness = self._difficulty.tolist()
        size = len(self.run.data.examples)
        unit = self.run.spec.global_batch if self.run.spec.is_grouped else 1
        per_pass = max(unit, size // unit * unit)
        result: list[int] = []
        for number, at in enumerate(range(0, len(order), per_pass)):
            part = order[at : at + per_pass]
            result.extend(self._sorted(part, hardness, unit) if number < self.settings.passes else part)
        return result

    def _sorted(self, part: list[int], hardness: list[float], unit: int) -> list[int]:
        blocks = [part[at : at + unit] for at in range(0, len(part), unit)]
        values = [sum(hardness[index] for index in block) / len(block) for block in blocks]
        ranked = sorted(range(len(blocks)), key=lambda place: (values[place], place))
        level = {place: rank * self.settings.buckets // len(blocks) for rank, place in enumerate(ranked)}
        # The sort is stable: inside a level blocks stay as they were drawn.
        return [index for place in sorted(range(len(blocks)), key=lambda p: level[p]) for index in blocks[place]]

    def _measure(self) -> torch.Tensor:
        examples = self.run.data.examples
        if self.settings.by == "loss":
            self.run.note(t("measuring the loss of {n} samples for the curriculum", n=len(examples)))
            return start_losses(self.run)
        if self.settings.by == "length":
            return torch.tensor(examples.num_tokens.tolist(), dtype=torch.float64)
        return torch.tensor(_field(self.run.config.data, self.settings.field, list(examples.rows)), dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        return {"difficulty": self._difficulty}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._difficulty = state["difficulty"]


def _field(path: Path, field: str, rows: list[int]) -> list[float]:
    if path.suffix not in (".json", ".jsonl"):
        raise ConfigError(
            t("the field '{field}' is read from a JSON or JSON-lines file", field=field),
            where=str(path),
            hint=t("convert the data, or use by: length or by: loss"),
        )
    lines = path.suffix == ".jsonl"
    records = [value for _, value in read_rows(path)] if lines else json.loads(path.read_bytes())
    values = [records[row].get(field) for row in rows]
    wrong = [records[row].get("id", row) for row, v in zip(rows, values, strict=True) if not isinstance(v, int | float)]
    if wrong:
        raise DataError(
            t("{n} records have no number in the field '{field}'", n=len(wrong), field=field),
            where=str(path),
            got=", ".join(map(str, wrong[:5])),
            hint=t("add the field to every record, or use by: length or by: loss"),
        )
    return [float(value) for value in values]


TECHNIQUE = Curriculum
