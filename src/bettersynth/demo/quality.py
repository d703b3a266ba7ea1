"""How well a recipe treated the demo world's known noise. Only the demo can ask this: it hid the labels itself."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

from bettersynth.core.record import FilterQuality
from bettersynth.engine.trace import load as load_trace

LABELS = "hidden/noise_labels.jsonl"


def noise_labels(workspace: Path) -> list[dict[str, str]]:
    """A record per row: ``id``, ``noise`` (its quality class), and for a repeated pair ``copy_of``, the first's id."""
    lines = (workspace / LABELS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def filter_quality(dataset: Path, workspace: Path) -> list[FilterQuality]:
    """Per class: rows dropped, rows whose text was changed and kept, rows kept as they were.

    Which of several equal pairs a recipe leaves is no matter of quality: where it dropped the first and kept a copy,
    the two change places before counting.

    Raises:
        DataError: the data set has no trace.
    """
    changed = {event["id"] for event in load_trace(dataset, action="changed")}
    kept = {event["id"] for event in load_trace(dataset, action="kept")}
    labels = noise_labels(workspace)
    fates = {
        row: "dropped" if row not in kept else "repaired" if row in changed else "kept"
        for row in (label["id"] for label in labels)
    }
    for label in labels:
        copy, first = label["id"], label.get("copy_of", label["id"])
        if fates[first] == "dropped" != fates[copy]:
            fates[first], fates[copy] = fates[copy], fates[first]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for label in labels:
        counts[label["noise"]][fates[label["id"]]] += 1
    return [
        FilterQuality(noise, sum(found.values()), found["dropped"], found["repaired"], found["kept"])
        for noise, found in sorted(counts.items())
    ]
