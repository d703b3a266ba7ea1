"""Grids of subplots: equal to Data-Juicer for the lines that OpenCV found (tools/record_data_juicer_rows.py)."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bettersynth.core.errors import MissingExtraError
from bettersynth.infer.loader import load_lines
from bettersynth.infer.protocols import Line, LineDetector, LineSearch
from bettersynth.ops._context import OpContext
from bettersynth.ops.filters.image_subplot_filter import ImageSubplotFilter

HERE = Path(__file__).parent
GOLD: list[dict[str, Any]] = json.loads((HERE / "data_juicer_rows.json").read_text(encoding="utf-8"))["subplots"]
_SPEC = importlib.util.spec_from_file_location("tricky_pictures", HERE / "tricky_pictures.py")
assert _SPEC is not None and _SPEC.loader is not None
tricky = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tricky)


class Recorded:
    """The lines that OpenCV found in these pictures."""

    digest = "recorded"

    def __init__(self, lines: list[list[Line]]) -> None:
        self.found = lines

    def lines(self, images: Sequence[Any], search: LineSearch = LineSearch()) -> list[list[Line]]:
        assert len(images) == len(self.found)
        return self.found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("grids")
    tricky.write_grids(place)
    return place


@pytest.mark.parametrize("case", GOLD, ids=lambda case: str(case["params"]))
def test_the_same_confidence_and_the_same_rows(case: dict[str, Any], folder: Path, batch: Any) -> None:
    made = ImageSubplotFilter(**case["params"])
    made.check()
    for picture in case["pictures"]:
        ctx = OpContext(image_roots=[folder])
        ctx._models["lines", ""] = Recorded(picture["lines"])
        stats = made.score(batch([""], images=[picture["images"]]), ctx)
        assert set(stats) == set(picture["stats"])
        for name, expected in picture["stats"].items():
            assert stats[name].to_pylist()[0] == pytest.approx(expected, rel=1e-12)
        assert made.keep(stats).tolist() == [picture["keep"]]
    assert len({picture["keep"] for picture in case["pictures"]}) == 2, "both outcomes occur"


def test_opencv_finds_the_recorded_lines(folder: Path) -> None:
    pytest.importorskip("cv2")
    for case in GOLD:
        made = ImageSubplotFilter(**case["params"])
        search = LineSearch(
            *(made.canny_threshold1, made.canny_threshold2, made.hough_threshold, made.min_line_length),
            made.max_line_gap,
        )
        ctx = OpContext(image_roots=[folder])
        for picture in case["pictures"]:
            images = [ctx.image(folder / name) for name in picture["images"]]
            found = load_lines("").lines(images, search)
            assert [[list(line) for line in lines] for lines in found] == picture["lines"]


def test_rows_without_pictures_stay_and_pictures_are_looked_at_once(folder: Path, batch: Any) -> None:
    ctx = OpContext(image_roots=[folder])
    ctx._models["lines", ""] = Recorded([[(0, 5, 9, 5)]])
    made = ImageSubplotFilter()
    stats = made.score(batch(["", ""], images=[[], ["flat.png", "flat.png"]]), ctx)
    assert stats["horizontal_peak_count"].to_pylist() == [[], [1, 1]]
    assert made.keep(stats).tolist() == [True, True]


def test_opencv_is_asked_as_data_juicer_asks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    stub = types.ModuleType("cv2")
    stub.COLOR_RGB2GRAY = 7  # type: ignore[attr-defined]
    stub.cvtColor = lambda pixels, code: pixels[..., 0]  # type: ignore[attr-defined]
    stub.GaussianBlur = lambda grey, size, sigma: asked.update(blur=(size, sigma)) or grey  # type: ignore[attr-defined]
    stub.Canny = lambda grey, low, high: asked.update(canny=(low, high)) or grey  # type: ignore[attr-defined]

    def hough(edges: Any, *numbers: Any, **named: Any) -> Any:
        asked.update(hough=(*numbers, named))
        return None if "again" in asked else np.array([[[1, 2, 3, 4]], [[5, 6, 7, 8]]])

    stub.HoughLinesP = hough  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv2", stub)
    detector = load_lines("")
    assert isinstance(detector, LineDetector)
    image = tricky.scene(1, 30, 20)
    assert detector.lines([image], LineSearch(1, 2, 3, 4, 5)) == [[(1, 2, 3, 4), (5, 6, 7, 8)]]
    assert asked["blur"] == ((5, 5), 0) and asked["canny"] == (1, 2)
    assert asked["hough"] == (1, np.pi / 180, 3, {"minLineLength": 4, "maxLineGap": 5})
    asked["again"] = True
    assert detector.lines([image]) == [[]]
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match="'faces' extra"):
        load_lines("")
