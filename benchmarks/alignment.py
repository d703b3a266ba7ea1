"""How well the early look at alignment tells what comes of a run: ``python -m benchmarks.alignment EXPERIMENT_DIR``.

Reads the finished trials of an experiment (``bettersynth compare``): the readings that stage 1 took (``probe.jsonl``)
and the scores at the end. A trial came out well when its score is above the middle between the experiment's worst and
best trial. For each reading and signal: the area under the ROC curve (1 foretells perfectly, 0.5 not at all) with its
95 % bootstrap interval over trials, Spearman's correlation with the score, and how often the signal names the better of
two trials of one condition, which differ by their seed alone. Last, what the verdict said of good and of other trials.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from bettersynth.train.probe import verdict_of

RESULTS = Path(__file__).parent / "results"
SIGNALS = {"margin": 1, "retrieval": 1, "held_out_loss": -1, "loss": -1}
"""Fields of a reading, and whether more of it is better."""
_DRAWS = 2000
Facts = dict[str, Any]


def area_under_curve(values: Sequence[float], is_good: Sequence[bool]) -> float:
    """Chance that a good run has a higher value than a bad one; ties count half.

    >>> area_under_curve([1, 2, 3, 4], [False, False, True, True])
    1.0
    """
    good = np.asarray(is_good, bool)
    ranks = rankdata(values)
    pairs = good.sum() * (~good).sum()
    return float((ranks[good].sum() - good.sum() * (good.sum() + 1) / 2) / pairs) if pairs else float("nan")


def within(trials: Sequence[Mapping[str, Any]], values: Sequence[float]) -> tuple[float, int]:
    """Share of the pairs of trials of one condition whose better one has the higher value, and how many pairs."""
    named = []
    for (one, a), (other, b) in combinations(zip(trials, values, strict=True), 2):
        if one["condition"] == other["condition"] and one["score"] != other["score"]:
            named.append(0.5 if a == b else float((a > b) == (one["score"] > other["score"])))
    return (sum(named) / len(named) if named else float("nan")), len(named)


def verdicts(trials: Sequence[Mapping[str, Any]], share: float) -> dict[str, list[int]]:
    """Good trials and other ones that were said to use their pictures, each out of how many."""
    good = good_ones([trial["score"] for trial in trials])
    said = np.array([verdict_of(trial["readings"][share]["low"]) == "aligned" for trial in trials])
    return {"good": [int(said[good].sum()), int(good.sum())], "others": [int(said[~good].sum()), int((~good).sum())]}


def good_ones(scores: Sequence[float]) -> np.ndarray:
    """Which scores are above the middle between the lowest and the highest."""
    return np.asarray(scores) > (min(scores) + max(scores)) / 2


def shares(trials: Sequence[Mapping[str, Any]]) -> list[float]:
    """The readings that all trials have."""
    return sorted(set.intersection(*(set(trial["readings"]) for trial in trials)))


def load(experiment: Path, protocol: str) -> list[Facts]:
    """One entry per finished trial that has readings: condition, seed, score in percent, readings by share."""
    found = []
    for path in sorted(experiment.glob("trials/*/trial.json")):
        trial = json.loads(path.read_bytes())
        files = list(path.parent.glob("training_dirs/MGM-2B-Pretrain-*/probe.jsonl"))
        scores = trial["scores"].get(protocol)
        if len(files) != 1 or not scores:
            continue
        lines = [json.loads(line) for line in files[0].read_text().splitlines()]
        score = 100 * sum(scores.values()) / len(scores)
        readings = {line["share"]: line for line in lines}
        found.append({"condition": trial["condition"], "seed": trial["seed"], "score": score, "readings": readings})
    return found


def measure(trials: Sequence[Mapping[str, Any]]) -> list[Facts]:
    """A row per reading and signal."""
    scores = np.array([trial["score"] for trial in trials])
    is_good = good_ones(scores)
    rng = np.random.default_rng(0)
    rows = []
    for share in shares(trials):
        for signal, sign in SIGNALS.items():
            values = sign * np.array([trial["readings"][share][signal] for trial in trials])
            draws = [rng.integers(0, len(trials), len(trials)) for _ in range(_DRAWS)]
            areas = [area_under_curve(values[draw], is_good[draw]) for draw in draws]
            low, high = np.nanpercentile(areas, [2.5, 97.5])
            area, rho = area_under_curve(values, is_good), float(spearmanr(values, scores).statistic)
            row = {"share": share, "signal": signal, "auc": area, "low": low, "high": high, "spearman": rho}
            row["within"], row["pairs"] = within(trials, values)
            rows.append(row)
    return rows


def main(words: Sequence[str] | None = None) -> int:
    """Print the table and write it to benchmarks/results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.alignment", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT_DIR")
    parser.add_argument("--protocol", default="textvqa-noocr", help="score that counts (default: textvqa-noocr)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    args = parser.parse_args(words)
    trials = load(args.experiment, args.protocol)
    if len(trials) < 4:
        parser.error(
            f"{len(trials)} trials with readings and {args.protocol} in {args.experiment}; at least 4 are needed"
        )
    rows = measure(trials)
    scores = [trial["score"] for trial in trials]
    middle = (min(scores) + max(scores)) / 2
    good = int(good_ones(scores).sum())
    print(f"{len(trials)} trials; {args.protocol} {min(scores):.1f} to {max(scores):.1f}; {good} above {middle:.1f}")
    for row in rows:
        print(
            "{share:>4.0%}  {signal:<14} AUC {auc:.2f} [{low:.2f}, {high:.2f}]  Spearman {spearman:+.2f}  "
            "better of two seeds {within:.0%} of {pairs}".format(**row)
        )
    said = {str(share): verdicts(trials, share) for share in shares(trials)}
    for share, found in said.items():
        words_of = ", ".join(f"{name} {aligned}/{count}" for name, (aligned, count) in found.items())
        print(f"{float(share):>4.0%}  said to use their pictures: {words_of}")
    args.results.mkdir(parents=True, exist_ok=True)
    facts = {"benchmark": "alignment", "protocol": args.protocol, "trials": len(trials), "good": good, "rows": rows}
    facts["verdicts"] = said
    (args.results / "alignment.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
