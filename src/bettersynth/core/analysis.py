"""Records of an analysis: where scores come from and what is different between two models. All figures in percent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bettersynth.core.record import Interval


@dataclass(frozen=True, slots=True)
class Group:
    """Questions that have something in common, and how both models fare on them.

    Args:
        kind: what they share: ``category``, ``question type``, ``answer length``, ``answer kind``, ``error``.
        name: which of these it is.
        num_questions: how many there are (for an error: how many questions in all).
        a, b: mean score (for an error: share of questions); ``b`` is None when only one model is looked at.
        difference: b - a in points with its paired interval.
        p_value_holm: of the difference, corrected for all groups of this kind.
    """

    kind: str
    name: str
    num_questions: int
    a: Interval
    b: Interval | None = None
    difference: Interval | None = None
    p_value_holm: float | None = None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``tie`` of b against a."""
        if self.difference is None or self.p_value_holm is None or self.p_value_holm >= 0.05:
            return "tie"
        return "better" if self.difference.value > 0 else "worse"


@dataclass(frozen=True, slots=True)
class ChangedQuestion:
    """A question that two models answered with different scores; with several seeds, the means over them differ.

    Args:
        question, expected: what was asked and the best known answer; empty when the question files are not there.
        before, after: answers of A and B; with several seeds those of a pair that shows the change.
        picture: path of the picture, empty when unknown.
        difference: score of B minus score of A, -1 to 1.
    """

    question_id: str
    question: str
    expected: str
    before: str
    after: str
    error_before: str
    error_after: str
    difference: float
    category: str = ""
    picture: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike two models answer, in percent of the questions; with several seeds, means over pairs of them.

    Args:
        same_answer: both gave the same answer, as read by the scorer.
        both_right, only_a, only_b, both_wrong: add up to 100; right means a score above one half.
        same_wrong: of the questions that both got wrong, the share with the same wrong answer.
        kappa: Cohen's kappa of being right, -1 to 1; None when one model is always right or always wrong.
        within_a, within_b: ``same_answer`` between seeds of one condition: how alike the same recipe answers twice.
        p_mcnemar: exact test that both are right equally often; one seed each only.
    """

    same_answer: Interval
    both_right: Interval
    only_a: Interval
    only_b: Interval
    both_wrong: Interval
    same_wrong: Interval | None = None
    kappa: Interval | None = None
    within_a: float | None = None
    within_b: float | None = None
    p_mcnemar: float | None = None


@dataclass(frozen=True, slots=True)
class ProtocolAnalysis:
    """One or two models under one scoring protocol."""

    protocol: str
    num_questions: int
    a: Interval
    chance: float
    b: Interval | None = None
    difference: Interval | None = None
    p_value: float | None = None
    verdict: str = ""
    groups: tuple[Group, ...] = ()
    errors: tuple[Group, ...] = ()
    fixed: tuple[ChangedQuestion, ...] = ()
    broken: tuple[ChangedQuestion, ...] = ()
    agreement: Agreement | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything that an analysis page shows.

    Args:
        name_a, name_b: of the models or conditions; ``name_b`` is empty when there is one.
        num_seeds: checkpoints of A and of B.
        is_seed_paired: both come from the same seeds, so differences are taken seed by seed.
        digests: what the figures come from, by name.
    """

    name_a: str
    protocols: tuple[ProtocolAnalysis, ...]
    name_b: str = ""
    num_seeds: tuple[int, int] = (1, 0)
    is_seed_paired: bool = True
    command: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
