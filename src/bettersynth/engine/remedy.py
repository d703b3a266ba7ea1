"""What to do when too many rows failed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bettersynth.config.recipe import Recipe
from bettersynth.core.artifact import Artifact
from bettersynth.core.lang import t
from bettersynth.engine.source import Source

_NOT_FOUND = "image not found: "  # reasons of rows are English in every language
_PARENTS = 4


def remedy(recipe: Recipe, source: Source, failed: int, first: Mapping[str, Any]) -> str:
    """What to do about failed rows: where their pictures are if they are somewhere else, or how to leave them out.

    Args:
        failed: how many rows have failed.
        first: the first of them, as in ``quarantine.jsonl``.
    """
    root = _other_root(recipe, source, first)
    if root is not None:
        return t("these pictures are in another folder; add: {flag}", flag=f"--set image_root={root}")
    if not recipe.keys.skip_op_error:
        return t("mend the rows, or if they may be lost add: {flag}", flag="--set skip_op_error=true")
    ratio = math.ceil(100 * failed / source.lines) / 100
    return t("mend the rows, or if they may be lost add: {flag}", flag=f"--set max_failed_ratio={ratio:g}")


def _other_root(recipe: Recipe, source: Source, first: Mapping[str, Any]) -> Path | None:
    """A folder from which the picture that was not found can be reached."""
    error = str(first["error"])
    if not error.startswith(_NOT_FOUND) or recipe.keys.image_root is not None:
        return None
    name = error.removeprefix(_NOT_FOUND)
    stamps = source.files[first["file"]].stamps
    data = Path(stamps[0][0]) if stamps else Path(source.files[first["file"]].path)
    return next((root for root in _roots(data) if (root / name).is_file()), None)


def _roots(data: Path) -> Iterator[Path]:
    if Artifact.exists(data.parent):  # a result of ours knows where its pictures were
        yield from map(Path, Artifact.load(data.parent).run.get("image_roots", ()))
    yield from list(data.parents)[1:_PARENTS]
    yield Path.cwd()
