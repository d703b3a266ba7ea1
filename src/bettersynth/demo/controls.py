"""Conditions that no user can make, because they use the demo world's hidden truth: the clean ceiling and its half.

They say how far a perfect recipe could get, and whether fewer but clean pairs are worth more than many noisy ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bettersynth.core.fingerprint import digest_file
from bettersynth.core.seed import generator
from bettersynth.demo.world.build import make_pool
from bettersynth.demo.world.language import caption
from bettersynth.experiment.loop import LLAVA_FILE, StageData
from bettersynth.experiment.workspace import Workspace
from bettersynth.formats.llava import read_llava, write_llava


def control_builders(workspace: Path, *, pool: int, seed: int) -> Mapping[str, Callable[[Path], StageData | None]]:
    """Data builders by condition name.

    Args:
        workspace: the demo workspace.
        pool: pairs in its seed pool.
        seed: seed the world was built with.
    """
    return {
        "clean": partial(_clean, workspace, pool, seed, 1.0),
        "clean_half": partial(_clean, workspace, pool, seed, 0.5),
    }


def _clean(workspace: Path, pool: int, seed: int, share: float, folder: Path) -> StageData:
    """The pool's pictures (a random ``share`` of them) with true captions, in the original order."""
    place = Workspace(workspace)
    pairs = make_pool(pool, generator(seed, "demo-world", "pool"))
    rng = generator(seed, "demo-world", "clean-captions")
    truths = [caption(pair.scene, rng) for pair in pairs]
    items: list[dict[str, Any]] = [dict(record) for record in read_llava(place.questions).records]
    chosen = range(len(items)) if share >= 1 else _half(len(items), share, generator(seed, "demo-world", "clean-half"))
    records = []
    for index in chosen:
        question, reply = items[index]["conversations"]
        records.append({**items[index], "conversations": [question, {**reply, "value": truths[index]}]})
    path = folder / LLAVA_FILE
    write_llava(path, records)
    return StageData(path, place.seed_folder, digest_file(path), {"rows": len(records)})


def _half(count: int, share: float, rng: random.Random) -> list[int]:
    return sorted(rng.sample(range(count), round(count * share)))
