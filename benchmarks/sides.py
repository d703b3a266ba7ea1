"""The two sides: the same recipe file, run by us and by Data-Juicer, each in a fresh folder with nothing cached."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

import bettersynth
from benchmarks.measure import Cost, run
from bettersynth.core import native
from bettersynth.core.fingerprint import digest_file

RECIPES = Path(__file__).parent / "recipes"
_BATCH = 1000
"""Rows that Data-Juicer works on, and loses, together."""


@dataclass(frozen=True)
class Result:
    """One run: what it cost and the rows it wrote."""

    side: str
    cost: Cost
    rows: list[dict[str, Any]]
    log: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    def summary(self, rows_in: int) -> dict[str, Any]:
        """Plain numbers for the results file."""
        cost = self.cost
        return {
            "cpu_s": cost.cpu_s,
            "wall_s": cost.wall_s,
            "rows_per_cpu_s": round(rows_in / cost.cpu_s, 1) if cost.cpu_s else None,
            "peak_pss_mb": cost.pss_bytes >> 20,
            "load_before": cost.load,
            "rows_out": len(self.rows),
            "exit_code": cost.exit_code,
            **self.facts,
        }


@dataclass(frozen=True)
class Sides:
    """Runs recipes in ``work``; without ``data_juicer`` (its Python) only our side."""

    work: Path
    data_juicer: Path | None = None

    def recipe(self, name: str, data: Path, folder: Path, **keys: Any) -> Path:
        """The recipe as both sides read it, with its paths filled in."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        document = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
        document.update(dataset_path=str(data), export_path=str(folder / "out" / "rows.jsonl"), np=1, **keys)
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    def ours(
        self,
        name: str,
        data: Path,
        *,
        workers: int = 1,
        keep: bool = False,
        compiled: bool = True,
        rows: bool = True,
        **keys: Any,
    ) -> Result:
        """Run ``bettersynth process``. ``keep`` uses the folder of the run before, to measure a cached run.

        Without ``rows`` these are only counted and their digest is taken: millions do not fit into memory.

        Without ``compiled``, numpy and Pillow do all the work. Compiling itself, once a machine, is not measured, nor
        is that of the Python files, which an installed package brings along.
        """
        _byte_code()
        if compiled:
            native.library(1 << 20)
        folder = self.work / f"ours_{name}"
        path = folder / "recipe.yaml" if keep else self.recipe(name, data, folder, **keys)
        command = [sys.executable, "-m", "bettersynth", "process", str(path), "--np", str(workers), "--json"]
        cost = run(
            [*command, "--out", str(folder / "out")],
            log=folder / "log.txt",
            env={**quiet(), native.SWITCH: str(int(compiled))},
        )
        out = folder / "out" / "rows.jsonl"
        facts: dict[str, Any] = {}
        if cost.exit_code == 0:
            facts["quarantined"] = _count(folder / "out" / "quarantine.jsonl")
            facts |= {} if rows else {"rows_out": _count(out), "digest": digest_file(out)}
        return Result("bettersynth", cost, list(_rows(out)) if rows else [], folder / "log.txt", facts)

    def parts(self, name: str, data: Path) -> dict[str, float]:
        """CPU seconds by part of one run in one process; see :mod:`benchmarks.parts`."""
        folder = self.work / f"parts_{name}"
        path = self.recipe(name, data, folder)
        command = [sys.executable, "-m", "benchmarks.parts", str(path), str(folder / "out")]
        cost = run(command, log=folder / "log.txt", env=quiet(), cwd=Path(__file__).parents[1])
        text = (folder / "log.txt").read_text(encoding="utf-8")
        if cost.exit_code:
            raise RuntimeError(text[-2000:])
        found: dict[str, float] = json.loads(text.splitlines()[-1])
        return found

    def theirs(self, name: str, data: Path, *, workers: int = 1, **keys: Any) -> Result | None:
        """Run ``dj-process``'s entry in Data-Juicer's own Python, default executor, or None without it."""
        if self.data_juicer is None:
            return None
        folder = self.work / f"theirs_{name}"
        path = self.recipe(name, data, folder, ds_cache_dir=str(folder / "cache"), **keys)
        env = {**quiet(), "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
        command = [str(self.data_juicer), "-m", "data_juicer.tools.process_data", "--config", str(path)]
        cost = run([*command, "--np", str(workers)], log=folder / "log.txt", env=env, cwd=folder)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        return Result("data-juicer", cost, list(_rows(folder / "out" / "rows.jsonl")), folder / "log.txt")

    def operator_code(self, name: str, data: Path) -> Result | None:
        """What Data-Juicer's operators themselves say, without its executor; see :mod:`benchmarks.operator_code`."""
        if self.data_juicer is None:
            return None
        folder = self.work / f"code_{name}"
        path = self.recipe(name, data, folder)
        script = Path(__file__).with_name("operator_code.py")
        out = folder / "rows.jsonl"
        command = [str(self.data_juicer), str(script), str(path), str(data), str(out)]
        cost = run(command, log=folder / "log.txt", env={**quiet(), "HF_HUB_OFFLINE": "1"}, cwd=folder)
        return Result("operator code", cost, list(_rows(out)), folder / "log.txt")


@lru_cache(maxsize=1)
def _byte_code() -> None:
    compileall.compile_dir(Path(bettersynth.__file__).parent, quiet=2)


def quiet() -> dict[str, str]:
    """The environment of every run: one thread, no network, English."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **inherited,
        "OMP_NUM_THREADS": "1",
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "BETTERSYNTH_LANG": "en",
    }


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as handle:
            yield from map(json.loads, handle)


def _count(path: Path) -> int:
    return sum(1 for _ in path.open("rb")) if path.is_file() else 0


def compare(ours: Result, theirs: Result, *, name: str) -> dict[str, Any]:
    """Row by row: ids in order, texts, pictures. Lists at most five ids of each kind of difference."""
    left = {row["id"]: row for row in ours.rows}
    right = {row["id"]: row for row in theirs.rows}
    common = [key for key in left if key in right]
    texts = [key for key in common if left[key]["text"] != right[key]["text"]]
    images = [key for key in common if _names(left[key]) != _names(right[key])]
    order = common == [key for key in right if key in left]
    only_ours = [key for key in left if key not in right]
    only_theirs = [key for key in right if key not in left]
    return {
        "against": name,
        "is_equal": not (texts or images or only_ours or only_theirs) and order,
        "rows_ours": len(left),
        "rows_theirs": len(right),
        "only_ours": len(only_ours),
        "only_theirs": len(only_theirs),
        "other_text": len(texts),
        "other_images": len(images),
        "same_order": order,
        "examples": {"only_ours": only_ours[:5], "only_theirs": only_theirs[:5], "other_text": texts[:5]},
    }


def _names(row: Mapping[str, Any]) -> list[str]:
    return [Path(path).name for path in row.get("images") or ()]
