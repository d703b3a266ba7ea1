"""How well a recipe treated the demo world's known noise. Only the demo can ask this: it hid the labels itself."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

from bettersynth.core.record import FilterQuality
from bettersynth.engine.trace import load as load_trace

LABELS = "hidden/noise_labels.jsonl"


def noise_labels(workspace: Path) -> dict[str, str]:
    """Row id to quality class."""
    lines = (workspace / LABELS).read_text(encoding="utf-8").splitlines()
    return {record["id"]: record["noise"] for record in map(json.loads, lines)}


def filter_quality(dataset: Path, workspace: Path) -> list[FilterQuality]:
    """Per class: rows dropped, rows whose text was changed and kept, rows kept as they were.

    Raises:
        DataError: the data set has no trace.
    """
    labels = noise_labels(workspace)
    dropped: set[str] = set()
    changed: dict[str, set[str]] = defaultdict(set)
    for event in load_trace(dataset):
        if event["action"] in ("dropped", "quarantined"):
            dropped.add(event["id"])
        elif event["action"] == "changed":
            changed[event["id"]].add(event["operator"])
    kept = {event["id"] for event in load_trace(dataset, action="kept")}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row_id, noise in labels.items():
        fate = "dropped" if row_id not in kept else "repaired" if row_id in changed else "kept"
        counts[noise][fate] += 1
    return [
        FilterQuality(noise, sum(fates.values()), fates["dropped"], fates["repaired"], fates["kept"])
        for noise, fates in sorted(counts.items())
    ]
