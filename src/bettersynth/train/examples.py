"""The tokenised training set in memory: every row counted as kept, sampled away or rejected, none lost."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_bytes
from bettersynth.core.lang import t
from bettersynth.models.family import Example
from bettersynth.train.sampler import OrderSpec, sample_order

RejectStage = Literal["record", "encode", "image", "load"]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not trained on: where it stands, at which point it failed, and why.

    Attributes:
        row: position in the data file, from 0.
        stage: ``record`` (not a valid record), ``encode`` (no usable target), ``image`` (found missing or damaged
            before training) or ``load`` (found damaged when it was opened during training).
        step: the training step, for ``load``.
    """

    row: int
    key: str
    stage: RejectStage
    reason: str
    detail: str
    step: int | None = None


def num_targets(labels: Sequence[int]) -> int:
    """Labels that a next-token loss counts: the first one has nothing before it to predict it from."""
    return sum(label >= 0 for label in labels[1:])


class ExampleStore:
    """Examples in a compact form: ids and labels as 4-byte arrays, expanded again on access.

    200,000 records of 60 tokens take about 0.15 GB instead of more than 1 GB of Python integers.
    """

    def __init__(self) -> None:
        self._examples: list[Example] = []
        self.rows = array("q")
        self.num_tokens = array("i")
        self.num_targets = array("i")
        self.has_image = array("b")

    def add(self, example: Example, row: int) -> None:
        """Append one example that comes from a row of the data file."""
        packed: dict[str, Any] = {"input_ids": array("i", example.input_ids), "labels": array("i", example.labels)}
        self._examples.append(replace(example, **packed))
        self.rows.append(row)
        self.num_tokens.append(example.num_tokens)
        self.num_targets.append(num_targets(example.labels))
        self.has_image.append(bool(example.images))

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        packed = self._examples[index]
        return replace(packed, input_ids=list(packed.input_ids), labels=list(packed.labels))

    def key(self, index: int) -> str:
        """The record's id, without expanding it."""
        return self._examples[index].key

    def image_paths(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Index and picture paths of every example that has pictures."""
        for index, example in enumerate(self._examples):
            if example.images:
                yield index, tuple(image.path for image in example.images)

    def without(self, dropped: set[int]) -> ExampleStore:
        """A store that lacks the given indices."""
        kept = ExampleStore()
        for index, example in enumerate(self._examples):
            if index not in dropped:
                kept._examples.append(example)
                kept.rows.append(self.rows[index])
                kept.num_tokens.append(self.num_tokens[index])
                kept.num_targets.append(self.num_targets[index])
                kept.has_image.append(self.has_image[index])
        return kept


@dataclass(frozen=True)
class TrainingSet:
    """Examples to train on and the fate of every row: ``rows == len(examples) + len(rejected) + sampled_out``."""

    rows: int
    sampled_out: int
    examples: ExampleStore
    rejected: tuple[RejectedRow, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        accounted = len(self.examples) + len(self.rejected) + self.sampled_out
        if accounted != self.rows:
            raise DataError(
                t("rows are unaccounted for; this is a defect of bettersynth"),
                got=f"{self.rows} != {len(self.examples)} + {len(self.rejected)} + {self.sampled_out}",
            )

    @property
    def digest(self) -> str:
        """Which rows are usable and how long they are: what the order of samples is computed from."""
        return digest_bytes(self.examples.rows.tobytes() + self.examples.num_tokens.tobytes())

    def order(self, spec: OrderSpec) -> list[int]:
        """Indices in training order."""
        return sample_order(spec, self.examples.num_tokens, self.examples.has_image)

    @property
    def facts(self) -> dict[str, Any]:
        """What the result's manifest says beyond the counts of rows."""
        return {}

    @property
    def reasons(self) -> dict[str, int]:
        """Rejected rows by reason, most frequent first."""
        return dict(Counter(row.reason for row in self.rejected).most_common())
