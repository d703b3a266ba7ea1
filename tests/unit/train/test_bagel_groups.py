"""The original's data groups become records of which none is lost without a reason."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bettersynth.core.errors import ConfigErrors
from bettersynth.train.bagel_groups import import_groups
from bettersynth.train.unified_data import check_file, read_sources


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    captions = json.dumps({"a": "a red square", "b": "red"})
    write_parquet(
        tmp_path / "t2i" / "0.parquet",
        [{"image": _png("red"), "captions": captions}, {"image": _png("red"), "captions": "{"}],
    )
    steps = [["make it blue", "blue please"], ["now green"]]
    write_parquet(
        tmp_path / "edit" / "0.parquet",
        [
            {"image_list": [_png("red"), _png("blue"), _png("green")], "instruction_list": steps},
            {"image_list": [_png("red")], "instruction_list": []},
        ],
    )
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "x.png").write_bytes(_png("red"))
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "red"}]
    rows = [
        {"image": "x.png", "conversations": turns},
        {"video": "v.mp4", "conversations": turns},
        {"conversations": []},
    ]
    (tmp_path / "sft" / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "data.yaml").write_text(
        "t2i_pretrain: {dataset_names: [t2i], num_used_data: [1], weight: 2, is_mandatory: true}\n"
        "unified_edit: {dataset_names: [edit], num_used_data: [5], weight: 1}\n"
        "vlm_sft: {dataset_names: [sft], num_used_data: [3], weight: 1, shuffle_lines: true}\n"
    )
    (tmp_path / "paths.yaml").write_text(
        "t2i: {data_dir: t2i}\nedit: {data_dir: edit}\nsft: {jsonl_path: sft/s.jsonl, data_dir: sft}\n"
    )
    return tmp_path


def test_all_groups_become_a_mixture(groups: Path) -> None:
    out = groups / "out"
    found = import_groups(groups / "data.yaml", groups / "paths.yaml", out)
    assert found.rows == {"t2i": 2, "edit": 2, "sft": 3} and found.records == {"t2i": 1, "edit": 1, "sft": 1}
    reasons = [row["reason"] for row in found.rejected]
    assert len(reasons) == 4 and "no JSON" in reasons[0] and "1 picture" in reasons[1] and "videos" in reasons[2]
    sources = read_sources(out / "mixture.yaml", out)
    assert [source.weight for source in sources] == [2.0, 1.0, 1.0]
    assert not [bad for source in sources for bad in check_file(source.data, image_root=out)]
    edit = json.loads((out / "unified_edit-edit.jsonl").read_text())["conversations"]
    assert [turn["role"] for turn in edit] == ["user", "user", "assistant", "user", "assistant"]
    assert edit[1]["content"] in ("make it blue", "blue please") and edit[3]["content"] == "now green"
    again = groups / "again"
    import_groups(groups / "data.yaml", groups / "paths.yaml", again)
    assert (again / "t2i_pretrain-t2i.jsonl").read_bytes() == (out / "t2i_pretrain-t2i.jsonl").read_bytes()


def test_mistakes_are_listed_together(groups: Path) -> None:
    (groups / "data.yaml").write_text(
        "t2i: {dataset_names: [t2i]}\n"
        "unified_edit: {dataset_names: [edti], num_used_data: [1]}\n"
        "vlm_sft: {dataset_names: [sft, more], num_used_data: [1]}\n"
    )
    with pytest.raises(ConfigErrors) as caught:
        import_groups(groups / "data.yaml", groups / "paths.yaml", groups / "out")
    text = str(caught.value)
    assert "unknown data group" in text and "did you mean 'edit'" in text and "same length" in text
    assert not (groups / "out").exists()


def test_damaged_and_missing_pictures_are_left_out_and_named(groups: Path) -> None:
    captions = json.dumps({"a": "a red square"})
    write_parquet(
        groups / "t2i" / "0.parquet", [{"image": data, "captions": captions} for data in (b"no", _png("red"))]
    )
    steps = [["make it blue"]]
    write_parquet(
        groups / "edit" / "0.parquet", [{"image_list": [_png("red"), _png("blue")[:40]], "instruction_list": steps}]
    )
    (groups / "sft" / "x.png").unlink()
    found = import_groups(groups / "data.yaml", groups / "paths.yaml", groups / "out")
    assert found.records == {"t2i": 1, "edit": 0, "sft": 0}
    reasons = [row["reason"] for row in found.rejected]
    assert "00000000.bin" in reasons[0] and "00000000-1.png" in reasons[1] and "x.png: image not found" in reasons[2]
    assert [path.name for path in (groups / "out").rglob("images/**/*.*")] == ["00000001.png"]
