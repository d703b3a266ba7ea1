"""The passport of a sample: what every operator of a recipe saw and did to it, from the trace and the manifest."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import Artifact
from bettersynth.engine import trace
from bettersynth.engine.plan import Plan, unwrap
from bettersynth.ops.base import STATS, Filter, GlobalOperator, RangeFilter


def describe_steps(planned: Plan, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the passport needs to know of each step: kind, parameters that differ from the defaults, limits, stats.

    Args:
        found: what global operators found, by ``step:operator``; fitted limits are among it.
    """
    steps = []
    for number, wrapped in enumerate(planned.operators):
        operator = unwrap(wrapped)
        params = {
            field.name: getattr(operator, field.name)
            for field in dataclasses.fields(operator)
            if getattr(operator, field.name) != field.default
        }
        limits: dict[str, Any] = {}
        if isinstance(operator, RangeFilter):
            fitted = found.get(f"{number}:{operator.name}", {})
            own = dict(zip(operator.bounds, operator.limits(), strict=True))
            limits = {name: fitted.get(f"fitted {name}", value) for name, value in own.items()}
        decides = isinstance(wrapped, Filter | GlobalOperator)
        stats = [column.removeprefix(STATS) for column in operator.adds() if column.startswith(STATS)]
        plain = {name: value if isinstance(value, str | int | float) else str(value) for name, value in params.items()}
        steps.append({"operator": operator.name, "decides": decides, "params": plain, "limits": limits, "stats": stats})
    return steps


def step_labels(names: Iterable[str]) -> list[str]:
    """Names of steps as accountings and passports show them: an operator's second use is numbered.

    >>> step_labels(["a", "b", "a"])
    ['a', 'b', 'a #2']
    """
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return labels


def labels_of(folder: Path) -> dict[int, str]:
    """The label of each step of the recipe that made a folder; empty for a folder without a manifest."""
    steps = Artifact.load(folder).run.get("steps", ()) if Artifact.exists(folder) else ()
    return dict(enumerate(step_labels(step["operator"] for step in steps)))


def passport(folder: Path, row_id: str) -> list[dict[str, Any]]:
    """Every step of every row with an id (or hidden key), in order; rows made from it come after it.

    Beside the events of the trace there is one event for each step that let the row pass (``passed``, with its scores
    and limits), only marked it as failing (``marked``) or left it as it was (``unchanged``). ``label`` is the operator,
    numbered where a recipe has it more than once.
    """
    events = trace.history(folder, row_id)
    steps: Sequence[Mapping[str, Any]] = ()
    if events and Artifact.exists(folder):
        steps = Artifact.load(folder).run.get("steps", ())
    by_key: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_key.setdefault(event["key"], []).append(event)
    labels = dict(enumerate(step_labels(step["operator"] for step in steps)))
    whole = [event for listed in by_key.values() for event in _whole(listed, steps)]
    return [{**event, "label": labels.get(event["step"], event["operator"])} for event in whole]


def _whole(events: list[dict[str, Any]], steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row's events with the silent steps between them."""
    made = [event["step"] for event in events if event["action"] == "made"]
    last = events[-1]
    is_over = last["action"] in ("dropped", "quarantined", "kept")
    stop = last["step"] if is_over else len(steps)
    scores: Mapping[str, Any] = next((event["scores"] for event in reversed(events) if event["scores"]), {})
    spoken: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        spoken.setdefault(event["step"], []).append(event)
    whole: list[dict[str, Any]] = []
    for number in range(-1, max(stop, *spoken) + 1):
        known = steps[number] if 0 <= number < len(steps) else None
        for event in spoken.get(number, ()):
            limits = known["limits"] if known is not None and known["decides"] else {}
            whole.append({**event, "limits": limits})
        if number in spoken or known is None or number >= stop or (made and number < made[0]):
            continue
        own = {name: scores[name] for name in known["stats"] if name in scores}
        is_marked = any(name.endswith("_failed") and value == 1 for name, value in own.items())
        whole.append(
            {
                "key": last["key"],
                "id": last["id"],
                "step": number,
                "operator": known["operator"],
                "action": ("marked" if is_marked else "passed") if known["decides"] else "unchanged",
                "reason": "",
                "scores": own,
                "image": last["image"],
                "before": None,
                "after": None,
                "limits": known["limits"] if known["decides"] else {},
            }
        )
    return whole
