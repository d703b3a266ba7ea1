"""The unit of work inside a stage; light to import, because every worker process does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bettersynth.ops.base import Operator

PhaseKind = Literal["apply", "make", "score_keep", "score", "keep", "partial", "verdict"]


@dataclass(frozen=True)
class Phase:
    """One part of an operator's work inside a stage. ``step`` counts the recipe's operators from 0.

    ``score_key`` names a filter's scores: like ``key``, without the parameters that only decide.
    ``text_key`` and ``image_key`` name other columns that this step alone sees as its text and pictures.
    """

    step: int
    kind: PhaseKind
    operator: Operator
    key: str
    text_key: str | None = None
    image_key: str | None = None
    score_key: str = ""
    has_models: bool = False
