"""Recipes over pictures through the executor: same bytes in any process layout, nothing decoded needlessly or lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import ConfigError
from bettersynth.engine.local import process
from bettersynth.engine.plan import plan

AUGMENT = """
  - image_tagging_mapper: {hf_clip: fake, top_k: 2, min_share: 0}
  - image_geometry_augment_mapper: {aug_num: 2}
  - image_color_augment_mapper: {}
  - image_blur_mapper: {p: 0.5}
  - image_sharpness_filter: {min_score: null}
  - adaptive_threshold_filter: {stat: image_sharpness, side: low}
  - topk_specified_field_selector: {field_key: __dj__stats__.image_sharpness, top_ratio: 0.9}
  - frequency_specified_field_selector: {field_key: extra.n, topk: 20}
  - image_deduplicator:
"""
MADE = "__dj__produced_data__"


def _made(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data / "images" / MADE).rglob("*.png")}


def test_augmented_rows_and_pictures_are_the_same_with_one_worker_and_two(
    recipe: Any, data: Path, tmp_path: Path
) -> None:
    found = []
    for workers in (1, 2):
        shutil.rmtree(data / "images" / MADE, ignore_errors=True)
        made = recipe(AUGMENT, track="open", export_path=str(tmp_path / f"out{workers}" / "out.jsonl"))
        process(made, out=tmp_path / f"out{workers}", workers=workers)
        found.append(((tmp_path / f"out{workers}" / "out.jsonl").read_bytes(), _made(data)))
    assert found[0] == found[1] and len(found[0][1]) > 20
    rows = [json.loads(line) for line in found[0][0].splitlines()]
    assert len({tuple(row["images"]) for row in rows}) == len(rows) > 5
    for row in rows:
        assert all((data / image).is_file() for image in row["images"])
        assert len(row["image_tags"]) == len(row["images"]) and len(row["__dj__source_file__"]) == len(row["images"])


def test_one_bad_picture_costs_one_row_and_a_cut_one_is_counted(recipe: Any, data: Path, tmp_path: Path) -> None:
    whole = (data / "images" / "3.png").read_bytes()
    (data / "images" / "3.png").write_bytes(whole[: len(whole) * 2 // 3])
    (data / "images" / "5.png").write_bytes(b"no picture")
    sizes = """
  - image_shape_filter: {min_width: 42}
  - image_aspect_ratio_filter: {max_ratio: 1.2}
  - image_size_filter: {min_size: "1"}
"""
    keys = {"on_missing_image": "keep", "max_failed_ratio": 0.5, "export_path": str(tmp_path / "out" / "out.jsonl")}
    process(recipe(sizes, **keys), out=tmp_path / "out", workers=1)
    facts = Artifact.load(tmp_path / "out").facts
    quarantined = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    # 5 rows show the file that is no picture; one names a file that is not there; one line is no JSON.
    reasons = [row["error"].split(":")[0] for row in quarantined]
    assert reasons.count("not an image") == 5 and reasons.count("image not found") == 1 and len(reasons) == 7
    assert facts["flags"] == {"truncated picture loaded": 1}
    kept = [json.loads(line) for line in (tmp_path / "out" / "out.jsonl").read_text().splitlines()]
    # Widths 40 to 51 less 5.png; 42 and more stay, and 51 / 40 is too wide.
    assert {int(Path(row["images"][0]).stem) for row in kept} == {2, 3, 4, 6, 7, 8}


def test_bounds_may_follow_the_data_for_pictures_too(recipe: Any, data: Path, tmp_path: Path) -> None:
    steps = """
  - image_sharpness_filter: {adaptive_threshold: {method: quantile, low: 0.25}}
  - image_face_ratio_filter: {cv_classifier: fake, max_ratio: 0.1, mark_only: true}
  - image_pair_similarity_filter: {hf_clip: fake, keep_others: true}
"""
    process(recipe(steps, export_path=str(tmp_path / "out" / "out.jsonl")), out=tmp_path / "out", workers=1)
    stats = [
        json.loads(line)["__dj__stats__"] for line in (tmp_path / "out" / "out_stats.jsonl").read_text().splitlines()
    ]
    assert 38 <= len(stats) <= 48
    assert {row["face_ratios_failed"] for row in stats} == {0, 1}
    assert all((row["face_ratios"][0] > 0.1) == bool(row["face_ratios_failed"]) for row in stats)


def test_a_library_s_own_model_needs_no_folder(recipe: Any) -> None:
    for value in ('""', "null"):
        made = plan(recipe(f"\n  - image_face_count_filter: {{cv_classifier: {value}}}\n"))
        assert len(made.operators) == 1
    with pytest.raises(ConfigError, match="no model in this folder"):
        plan(recipe("\n  - image_nsfw_filter: {hf_nsfw_model: no/such/folder}\n"))
