"""What a report shows, gathered from finished artifacts: data sets, trainings, machine. The page computes nothing."""

from __future__ import annotations

import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bettersynth import __version__
from bettersynth.core.artifact import Artifact
from bettersynth.core.record import DatasetSummary, FilterQuality, Picture, StageCost, TrainingSummary
from bettersynth.engine.local import accounting_of
from bettersynth.engine.trace import load as load_trace

PICTURES_PER_REASON = 8
PAIRS = 12
NUM_BINS = 24
_LISTED_PACKAGES = ("numpy", "pyarrow", "torch", "transformers", "tokenizers", "pillow", "ftfy")


def dataset_summary(
    folder: Path, *, name: str, filter_quality: Iterable[FilterQuality] = (), is_relative_to: Path | None = None
) -> DatasetSummary:
    """Accounting, score distributions before and after, and galleries by reason of one processed data set.

    Args:
        folder: result folder of the engine.
        filter_quality: how the known noise fared, where the truth is known (the demo).
        is_relative_to: shown source paths are relative to this folder.
    """
    artifact = Artifact.load(folder, kind="dataset")
    roots = [Path(root) for root in artifact.run.get("image_roots", [])]
    galleries: dict[str, list[Picture]] = defaultdict(list)
    before: dict[str, list[float]] = defaultdict(list)
    after: dict[str, list[float]] = defaultdict(list)
    for event in load_trace(folder):
        _count_scores(event, before, after)
        _show(event, galleries, roots, folder)
    sources = [Path(path) for path in artifact.run.get("sources", [])]
    shown = [
        str(p.relative_to(is_relative_to)) if is_relative_to and p.is_relative_to(is_relative_to) else p.name
        for p in sources
    ]
    return DatasetSummary(
        name=name,
        rows=int(artifact.facts["rows_out"]),
        accounting=accounting_of(artifact),
        histograms={stat: _histogram(values, after.get(stat, [])) for stat, values in sorted(before.items())},
        galleries={reason: tuple(pictures) for reason, pictures in galleries.items()},
        filter_quality=tuple(filter_quality),
        digest=artifact.digest,
        source=", ".join(shown),
    )


def _count_scores(event: Mapping[str, Any], before: dict[str, list[float]], after: dict[str, list[float]]) -> None:
    if event["action"] not in ("kept", "dropped"):
        return
    for stat, value in event["scores"].items():
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            before[stat].append(float(value))
            if event["action"] == "kept":
                after[stat].append(float(value))


def _show(event: Mapping[str, Any], galleries: dict[str, list[Picture]], roots: list[Path], folder: Path) -> None:
    action = event["action"]
    if action == "kept" or (action == "changed" and "caption" not in event["operator"]):
        return
    title = f"{event['operator']}: {event['reason'] or action}"
    limit = PAIRS if action == "changed" else PICTURES_PER_REASON
    if len(galleries[title]) < limit:
        path = _picture_path(event["image"], roots, folder)
        before, after = event["before"] or "", event["after"] or ""
        is_pair = action == "changed"
        galleries[title].append(Picture(path, after if is_pair else before, before if is_pair else "", event["id"]))


def _picture_path(image: str, roots: list[Path], folder: Path) -> str:
    for root in (*roots, folder):
        if image and (root / image).is_file():
            return str(root / image)
    return image


def _histogram(before: list[float], after: list[float]) -> dict[str, list[float]]:
    """Equal-width bins between the 0.5th and 99.5th percentile; what lies outside is counted in the end bins."""
    low, high = (float(value) for value in np.quantile(before, (0.005, 0.995)))
    edges = np.linspace(low, high if high > low else low + 1.0, NUM_BINS + 1)
    counts = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist() for values in (before, after)]
    return {"edges": edges.tolist(), "before": counts[0], "after": counts[1]}


def training_summary(folder: Path, *, name: str) -> TrainingSummary:
    """Log lines and facts of one finished stage."""
    artifact = Artifact.load(folder, kind="checkpoint")
    lines = (folder / str(artifact.run.get("log", "train_log.jsonl"))).read_text(encoding="utf-8").splitlines()
    facts = {key: value for key, value in artifact.facts.items() if key != "identity"}
    return TrainingSummary(
        name=name,
        stage=int(artifact.facts["stage"]),
        log=tuple(json.loads(line) for line in lines if line.strip()),
        facts=facts,
        digest=artifact.digest,
    )


def environment() -> dict[str, str]:
    """Machine class and versions, without host names or paths."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = {
        "bettersynth": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(cores),
        "memory": f"{memory:.0f} GiB",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "-"),
    }
    for package in _LISTED_PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "-"
    return facts


def dataset_cost(folder: Path, *, stage: str) -> StageCost:
    """Seconds that processing took, as its manifest says."""
    run = Artifact.load(folder, kind="dataset").run
    return StageCost(stage, float(run["wall_s"]), float(run["cpu_s"]))
