"""Reading and tokenising a stage's data: every row accounted for."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError, DataError
from bettersynth.train.callbacks import Callback
from bettersynth.train.data import choose_rows, prepare, read_rows
from bettersynth.train.stages import run_stage

Configure = Callable[..., StageConfig]
QUIET = Callback()


def cut_jpeg() -> bytes:
    """A JPEG whose header is whole and whose pixels are not: only decoding it shows the damage."""
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(stream, "JPEG")
    return stream.getvalue()[:1500]


@pytest.fixture
def dirty(data_folder: Path, tmp_path: Path) -> Path:
    """The good rows, and six bad ones, each bad in its own way."""
    rows: list[Any] = json.loads((data_folder / "data.json").read_text())
    turns = rows[0]["conversations"]
    rows[1:1] = [
        "not an object",
        {"id": "no-turns", "conversations": []},
        {"id": "no-target", "conversations": [turns[0]]},
        {"id": "long", "conversations": [turns[0], {"from": "gpt", "value": "x" * 3000}]},
        {**rows[1], "id": "missing", "image": "images/none.png"},
        {**rows[1], "id": "no-picture", "image": "data.json"},
    ]
    path = tmp_path / "dirty.json"
    path.write_text(json.dumps(rows))
    return path


def test_every_bad_row_is_named_with_its_reason(
    fake: ModuleType, configure: Configure, dirty: Path, data_folder: Path
) -> None:
    config = configure(data=str(dirty), image_root=str(data_folder), max_bad_ratio=0.2)
    data = prepare(config, fake.FakeProcessor(data_folder, 2048))
    assert data.rows == 48
    assert len(data.examples) == 42
    assert [(row.row, row.key, row.stage, row.reason) for row in data.rejected] == [
        (1, "", "record", "bad_record"),
        (2, "no-turns", "record", "bad_record"),
        (3, "no-target", "encode", "no_target"),
        (4, "long", "encode", "too_long"),
        (5, "missing", "image", "bad_image"),
        (6, "no-picture", "image", "bad_image"),
    ]
    assert "none.png" in data.rejected[4].detail
    assert data.reasons == {"bad_record": 2, "bad_image": 2, "no_target": 1, "too_long": 1}
    assert data.examples.rows[0] == 0
    assert data.examples.rows[1] == 7


def test_too_many_bad_rows_stop_the_run_with_the_first_reasons(
    fake: ModuleType, configure: Configure, dirty: Path, data_folder: Path
) -> None:
    config = configure(data=str(dirty), image_root=str(data_folder))
    with pytest.raises(DataError, match="6 of 48 samples") as caught:
        prepare(config, fake.FakeProcessor(data_folder, 2048))
    assert "row 3 (no-target)" in str(caught.value)
    assert "max_bad_ratio" in str(caught.value.hint)


def test_stop_means_the_first_bad_row(fake: ModuleType, configure: Configure, dirty: Path, data_folder: Path) -> None:
    config = configure(data=str(dirty), image_root=str(data_folder), max_bad_ratio=1.0, on_bad_sample="stop")
    with pytest.raises(DataError, match="cannot be trained on"):
        prepare(config, fake.FakeProcessor(data_folder, 2048))


def test_rejected_rows_are_written_beside_the_result(
    fake_family: ModuleType, configure: Configure, dirty: Path, data_folder: Path, tmp_path: Path
) -> None:
    notes: list[str] = []

    class Listen(Callback):
        def on_note(self, text: str) -> None:
            notes.append(text)

    config = configure(data=str(dirty), image_root=str(data_folder), max_bad_ratio=0.2)
    artifact = run_stage(config, out=tmp_path / "run", progress=Listen())
    lines = [json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert artifact.facts["rows_trained"] + sum(artifact.facts["rows_rejected"].values()) == 48
    assert any("6 rows left out" in note for note in notes)


def test_picture_that_breaks_while_training_is_left_out_and_counted(
    fake_family: ModuleType, configure: Configure, data_folder: Path, tmp_path: Path
) -> None:
    rows = json.loads((data_folder / "data.json").read_text())
    (tmp_path / "images").mkdir()
    (tmp_path / "images/cut.jpg").write_bytes(cut_jpeg())
    for row in rows:
        if "image" in row:
            row["image"] = str(data_folder / row["image"])
    rows[4]["image"] = "images/cut.jpg"
    (tmp_path / "data.json").write_text(json.dumps(rows))
    config = configure(data=str(tmp_path / "data.json"), epochs=2)
    artifact = run_stage(config, out=tmp_path / "run", progress=QUIET)
    lines = [json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()]
    assert [(line["row"], line["key"], line["stage"]) for line in lines] == [(4, "s004", "load")]
    assert lines[0]["step"] is not None
    assert artifact.facts["rows_trained"] == 41
    assert artifact.facts["samples_seen"] == 82
    with pytest.raises(DataError, match="cannot be trained on"):
        run_stage(config.model_copy(update={"on_bad_sample": "stop"}), out=tmp_path / "stop", progress=QUIET)


def test_a_step_of_only_bad_pictures_changes_nothing(
    fake_family: ModuleType, configure: Configure, data_folder: Path, tmp_path: Path
) -> None:
    rows = json.loads((data_folder / "data.json").read_text())[:8]
    (tmp_path / "images").mkdir()
    for number, row in enumerate(rows):
        row["image"] = f"images/{number}.jpg"
        row["conversations"][0]["value"] = "<image>\nwhat?"
        (tmp_path / row["image"]).write_bytes(cut_jpeg())
    (tmp_path / "data.json").write_text(json.dumps(rows))
    config = configure(data=str(tmp_path / "data.json"), max_bad_ratio=1.0)
    artifact = run_stage(config, out=tmp_path / "run", progress=QUIET)
    assert artifact.facts["rows_trained"] == 0
    assert artifact.facts["skipped_steps"] == 1


def test_sampling_down_is_the_kits() -> None:
    items = [f"row {n}" for n in range(300)]
    random.seed(1024)
    assert [items[n] for n in choose_rows(300, 200, 1024)] == random.sample(items, 200)
    assert choose_rows(5, 10, 1024) == choose_rows(5, None, 1024) == [0, 1, 2, 3, 4]


def test_too_many_samples_are_sampled_down_counted_and_announced(
    fake: ModuleType, configure: Configure, data_folder: Path
) -> None:
    data = prepare(configure(max_samples=20), fake.FakeProcessor(data_folder, 2048))
    assert (data.rows, data.sampled_out, len(data.examples)) == (42, 22, 20)
    assert "42 rows sampled down to 20 (seed 1024)" in data.notes[0]
    exact = prepare(configure(samples_seen=20), fake.FakeProcessor(data_folder, 2048))
    assert list(exact.examples.rows) == list(data.examples.rows)


def test_samples_seen_repeats_small_data(fake_family: ModuleType, configure: Configure, tmp_path: Path) -> None:
    artifact = run_stage(configure(samples_seen=100), out=tmp_path / "run", progress=QUIET)
    assert artifact.facts["samples_seen"] == 100
    assert artifact.facts["steps"] == 13
    assert artifact.facts["rows_trained"] == 42


@pytest.mark.parametrize(
    ("content", "message"),
    [("[{", "not valid JSON"), ('{"id": 1}', "not a JSON list"), ("[]", "no usable training sample")],
)
def test_unreadable_files_are_named(
    fake: ModuleType, configure: Configure, data_folder: Path, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(BetterSynthError, match=message) as caught:
        prepare(configure(data=str(path)), fake.FakeProcessor(data_folder, 2048))
    assert str(path) in str(caught.value)


def test_missing_data_file(fake_family: ModuleType, configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data file not found"):
        run_stage(configure(data=str(tmp_path / "none.json")), out=tmp_path / "run", progress=QUIET)


def test_rows_keep_their_places(dirty: Path) -> None:
    rows = read_rows(dirty)
    assert len(rows) == 48
    assert [row["id"] for row in rows if isinstance(row, dict)][:2] == ["s000", "no-target"]


def test_store_expands_to_the_same_example(fake: ModuleType, configure: Configure, data_folder: Path) -> None:
    data = prepare(configure(), fake.FakeProcessor(data_folder, 2048))
    example = data.examples[1]
    assert example.key == "s001"
    assert isinstance(example.input_ids, list)
    assert example.images[0].path == "images/1.png"
    assert data.examples.num_targets[1] == sum(label >= 0 for label in example.labels)
