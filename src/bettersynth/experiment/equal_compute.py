"""Equal budgets, or no comparison: data strategies may differ in data alone."""

from __future__ import annotations

from collections.abc import Mapping

from bettersynth.core.budget import Budget, check_equal
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.experiment.trials import TrialResult

Spent = Mapping[str, Budget]
"""Stage name to what its training spent."""


def spent_by(name: str, trials: Mapping[int, TrialResult]) -> Spent:
    """What the trainings of one condition spent, per stage; the same for every seed.

    Raises:
        ConfigError: two seeds of the condition had different budgets.
    """
    first, *others = trials.items()
    for seed, trial in others:
        if dict(trial.budgets) != dict(first[1].budgets):
            raise ConfigError(
                t("the seeds of one condition do not have the same compute budget"),
                where=name,
                got=f"seed {first[0]}: {dict(first[1].budgets)}; seed {seed}: {dict(trial.budgets)}",
                hint=t("delete the trial folders of the older one and run again"),
            )
    return first[1].budgets


def check(spent: Mapping[str, Spent], roles: Mapping[str, str]) -> list[str]:
    """Refuse unequal budgets between ranked conditions; name the marked rows whose budget differs.

    Args:
        spent: condition -> stage -> budget.
        roles: condition -> baseline | strategy | open | reference. Open and reference rows may spend another budget;
            they are returned, to be marked wherever they are shown, and are never ranked.

    Raises:
        ConfigError: ranked conditions differ; the message lists the numbers per stage.
    """
    ranked = [name for name in spent if roles.get(name, "strategy") in ("baseline", "strategy")]
    stages = sorted({stage for budgets in spent.values() for stage in budgets})
    for stage in stages:
        check_equal({f"{name} {stage}": spent[name].get(stage, Budget(0, 1)) for name in ranked})
    if not ranked:
        return []
    reference = dict(spent[ranked[0]])
    return [name for name in spent if name not in ranked and dict(spent[name]) != reference]
