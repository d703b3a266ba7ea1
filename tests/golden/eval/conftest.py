"""Where the golden vectors are: BETTERSYNTH_GOLDEN_MGM, else beside the repository, else the copy kept in the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[3]


def _candidates() -> list[Path]:
    given = os.environ.get("BETTERSYNTH_GOLDEN_MGM")
    beside = _ROOT.parent / "shared" / "golden" / "mgm_a"
    return [Path(given)] if given else [beside, _ROOT / "tests" / "golden" / "data" / "mgm_a"]


@pytest.fixture(scope="session")
def golden_part():
    """Returns the path of one part of the set; skips, by name, a part that the set lacks."""
    folder = next((path for path in _candidates() if path.is_dir()), None)
    if folder is None and "BETTERSYNTH_GOLDEN_MGM" in os.environ:
        pytest.fail(f"BETTERSYNTH_GOLDEN_MGM is no folder: {os.environ['BETTERSYNTH_GOLDEN_MGM']}")

    def part(name: str) -> Path:
        if folder is None:
            pytest.skip("no golden set of MGM: set BETTERSYNTH_GOLDEN_MGM")
        if not (folder / name).exists():
            pytest.skip(f"the golden set {folder} has no {name}")
        return folder / name

    return part
