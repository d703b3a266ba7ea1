"""The benchmarks by name. Each returns plain facts; a case that shows us losing stays in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.ceiling import gain, run_pair, shards_each
from benchmarks.sides import Result, Sides, compare, quiet

Facts = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A named benchmark: ``run(sides, size)``; ``small`` is the size that tests use."""

    name: str
    about: str
    size: int
    small: int
    run: Callable[[Sides, int], Facts]
    heavy: bool = False


def _captions(sides: Sides, count: int) -> Path:
    return _more_than_enough(sides.work / "data", "captions_*.jsonl", count) or data.write(
        sides.work / "data" / f"captions_{count}.jsonl", data.captions(count)
    )


def _more_than_enough(folder: Path, pattern: str, count: int) -> Path | None:
    """The beginning of a file that another case has made, whose name or folder says that it has more rows."""
    for path in folder.glob(pattern):
        rows = path.stem.rpartition("_")[2] if path.stem != "rows" else path.parent.name.rpartition("_")[2]
        if "first" not in path.stem and int(rows) > count:
            return data.beginning(path, count)
    return None


def _documents(sides: Sides, count: int) -> Path:
    return data.write(sides.work / "data" / f"documents_{count}.jsonl", data.documents(count))


def _pictures(sides: Sides, count: int) -> Path:
    folder = sides.work / "data" / f"pictures_{count}"
    found = _more_than_enough(sides.work / "data", "pictures_*/rows.jsonl", count)
    return found or data.write(folder / "rows.jsonl", data.pictures(folder, count))


def against(
    recipe: str, make: Callable[[Sides, int], Path], asked: float | str, *, has_compiled: bool = False
) -> Callable[[Sides, int], Facts]:
    """Both sides on one recipe in turn; ``asked`` is the ratio of samples per CPU second that is aimed at.

    ``has_compiled`` says that compiled loops take part, and measures our side without them, too.
    """

    def run(sides: Sides, size: int) -> Facts:
        path = make(sides, size)
        ours = sides.ours(recipe, path)
        facts: Facts = {"rows_in": size, "asked": asked, "ours": ours.summary(size)}
        if has_compiled:
            plain = sides.ours(recipe, path, compiled=False)
            facts["ours_without_compiled"] = {**plain.summary(size), "same_rows": plain.rows == ours.rows}
        theirs = sides.theirs(recipe, path)
        if theirs is None:
            return facts
        if has_compiled:
            facts["ratio_without_compiled"] = round(theirs.cost.cpu_s / plain.cost.cpu_s, 2)
        facts["theirs"] = theirs.summary(size)
        facts["ratio"] = round(theirs.cost.cpu_s / ours.cost.cpu_s, 2)
        if recipe != "startup":
            start = start_costs(sides)
            facts["start_cpu_s"] = dict(zip(("ours", "theirs"), start, strict=True))
            facts["ratio_after_start"] = _after_start(ours.cost.cpu_s - start[0], theirs.cost.cpu_s - start[1])
        facts["compared"] = [compare(ours, theirs, name="default executor")]
        code = sides.operator_code(recipe, path)
        if code is not None:
            facts["compared"].append(compare(ours, code, name="operator code"))
            facts["lost_to_rounding"] = _rounded(theirs, code)
        return facts

    return run


@lru_cache(maxsize=4)
def start_costs(sides: Sides) -> tuple[float, float]:
    """CPU seconds that ten rows take, ours and theirs: what starting costs, once a session."""
    path = _captions(sides, 10)
    theirs = sides.theirs("startup", path)
    return sides.ours("startup", path).cost.cpu_s, theirs.cost.cpu_s if theirs is not None else 0.0


def _after_start(ours_s: float, theirs_s: float) -> float | None:
    """Ratio of the work alone; None when ours is too little to be measured."""
    return round(theirs_s / ours_s, 1) if ours_s >= 0.05 else None


def _rounded(theirs: Result, code: Result) -> Facts:
    """Rows that the operators keep and the default executor loses, because it rounds stats in between."""
    kept = {row["id"] for row in theirs.rows}
    lost = [row["id"] for row in code.rows if row["id"] not in kept]
    return {"rows": len(lost), "ids": lost[:20]}


def cost_of_bookkeeping(sides: Sides, size: int, *, rounds: int = 5) -> Facts:
    """What trace, accounting and cache take of a run, and what a run costs when everything is cached.

    The parts are sampled, so that one run says little of a small part: those of several runs are added up.
    """
    path = _captions(sides, size)
    runs = [sides.parts("text", path) for _ in range(rounds)]
    parts = {name: round(sum(run.get(name, 0.0) for run in runs) / rounds, 3) for name in runs[0]}
    first = sides.ours("text", path)
    again = sides.ours("text", path, keep=True)
    total = sum(parts.values()) or 1.0
    shares = {name: round(100 * parts.get(name, 0.0) / total, 1) for name in ("trace", "accounting", "cache")}
    return {
        "rows_in": size,
        "ours": first.summary(size),
        "percent": shares,
        "trace_percent_of_each_run": [
            round(100 * run.get("trace", 0.0) / (sum(run.values()) or 1.0), 1) for run in runs
        ],
        "cpu_s_by_part": parts,
        "cached_rerun_cpu_s": again.cost.cpu_s,
        "cached_rerun_percent": round(100 * again.cost.cpu_s / first.cost.cpu_s, 1),
        "same_rows_again": again.rows == first.rows,
    }


def two_processes(sides: Sides, size: int, *, recipe: str = "text", make: Any = _captions, rounds: int = 5) -> Facts:
    """One and two processes in turn; the best of each counts, because everything else is other work's noise.

    In the same turns the ceiling: two processes that share nothing, against one after the other.
    """
    path = make(sides, size)
    runs: dict[int, list[Any]] = {1: [], 2: []}
    ceiling: dict[str, list[Any]] = {"one_after_the_other": [], "at_once": []}
    results: set[str] = set()
    same = sides.recipe(recipe, path, sides.work / f"ceiling_{recipe}")
    shards = shards_each(same)
    for _ in range(rounds):
        for workers in (1, 2):
            done = sides.ours(recipe, path, workers=workers, rows=False)
            runs[workers].append(done.cost)
            results.add(done.facts["digest"])
        for way, found in ceiling.items():
            found.append(run_pair(same, shards, quiet(), at_once=way == "at_once"))
    best = {workers: min(costs, key=lambda cost: cost.wall_s) for workers, costs in runs.items()}
    limit = gain(ceiling)
    wall_gain = round(best[1].wall_s / best[2].wall_s, 2)
    return {
        "rows_in": size,
        "rounds": rounds,
        "same_rows": len(results) == 1,
        "wall_gain": wall_gain,
        "cpu_ratio": round(best[2].cpu_s / best[1].cpu_s, 2),
        "asked": "wall_gain >= 1.5 at cpu_ratio <= 1.15",
        "ceiling": {name: limit[name] for name in ("wall_gain", "cpu_ratio")},
        "share_of_ceiling": round(wall_gain / limit["wall_gain"], 2),
        "ceiling_runs": limit["runs"],
        "runs": {str(workers): [vars_of(cost) for cost in costs] for workers, costs in runs.items()},
    }


def vars_of(cost: Any) -> Facts:
    """A cost as plain data."""
    return {"wall_s": cost.wall_s, "cpu_s": cost.cpu_s, "pss_mb": cost.pss_bytes >> 20, "load": cost.load}


def curve(recipe: str, make: Any, shares: tuple[float, ...], *, workers: int = 2) -> Callable[[Sides, int], Facts]:
    """Cost against size: it must stay linear, and memory must not grow with the rows."""

    def run(sides: Sides, size: int) -> Facts:
        points = []
        make(sides, size)  # the others are its beginnings
        for share in shares:
            count = max(1, int(size * share))
            done = sides.ours(recipe, make(sides, count), workers=workers, rows=False)
            points.append({"rows": count, **done.summary(count)})
        first, last = points[0], points[-1]
        per_row = [point["cpu_s"] / point["rows"] for point in points]
        memory = last["peak_pss_mb"] / first["peak_pss_mb"] if first["peak_pss_mb"] else None
        return {
            "points": points,
            "cpu_per_row_last_to_first": round(per_row[-1] / per_row[0], 3),
            "memory_last_to_first": None if memory is None else round(memory, 3),
        }

    return run


def bad_picture(sides: Sides, size: int) -> Facts:
    """One picture of the batch is no picture. Every other row must come out."""
    folder = sides.work / "data" / f"bad_picture_{size}"
    path = data.write(folder / "rows.jsonl", data.pictures(folder, size))
    (folder / "images" / f"{size // 2:06d}.jpg").write_bytes(b"not a picture")
    ours = sides.ours("shape", path)
    facts: Facts = {"rows_in": size, "ours": ours.summary(size), "ours_lost": size - 1 - len(ours.rows)}
    theirs = sides.theirs("shape", path)
    if theirs is not None:
        facts["theirs"] = theirs.summary(size)
        facts["theirs_lost_in_silence"] = size - 1 - len(theirs.rows)
        facts["theirs_reported_errors"] = "Errors: 0" not in theirs.log.read_text(encoding="utf-8", errors="replace")
    return facts


CASES = {
    case.name: case
    for case in (
        Case("startup", "10 rows: what starting costs", 10, 10, against("startup", _captions, "ours within 1 CPU s")),
        Case("text", "T: ten text operators", 50_000, 200, against("text", _captions, 12.0)),
        Case(
            "minhash",
            "D: near-duplicate documents",
            50_000,
            200,
            against("minhash", _documents, 20.0, has_compiled=True),
        ),
        Case(
            "images",
            "I: shape, size, aspect, perceptual hash",
            2_000,
            40,
            against("images", _pictures, 4.0, has_compiled=True),
        ),
        Case("image-size", "size filters alone", 2_000, 40, against("image_size", _pictures, 100.0)),
        Case("bad-image", "one damaged picture in a batch", 200, 40, bad_picture),
        Case("bookkeeping", "tracing, accounting and cache in percent", 50_000, 200, cost_of_bookkeeping),
        Case("two-processes", "two processes against one, text", 500_000, 200, two_processes, heavy=True),
        Case(
            "two-processes-images",
            "two processes against one, pictures",
            10_000,
            40,
            lambda sides, size: two_processes(sides, size, recipe="images", make=_pictures),
            heavy=True,
        ),
        Case("scaling", "cost and memory against rows", 2_000_000, 400, curve("text", _captions, (0.1, 0.5, 1)), True),
        Case("scaling-images", "the same with pictures", 30_000, 40, curve("images", _pictures, (0.1, 0.5, 1)), True),
    )
}
