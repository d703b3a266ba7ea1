"""The same records in JSON lines, Parquet and WebDataset: the same samples, the same training, the same refusals."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError, ConfigErrors, DataError
from bettersynth.core.fingerprint import digest_file
from bettersynth.demo.bagel.data import write_records
from bettersynth.demo.bagel.start import write_start
from bettersynth.formats.webdataset import WebDatasetWriter
from bettersynth.models.bagel.config import LlmConfig
from bettersynth.train.bases import start_digests
from bettersynth.train.callbacks import Callback
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage
from bettersynth.train.unified_data import read_sources
from bettersynth.train.unified_dataset import UnifiedGenerationDataset
from bettersynth.train.unified_flags import build_job

TINY = LlmConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
)
FORMS = ("train.jsonl", "paths.parquet", "bytes.parquet", "train.tar", "shards", "tars")


def write_parquet(path: Path, rows: list[dict[str, Any]], *, schema: pa.Schema | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def _paths(record: dict[str, Any]) -> list[str]:
    turns = record.get("conversations", [record])
    return [turn["image_path"] for turn in turns if "image_path" in turn]


def _tar(path: Path, records: list[dict[str, Any]], root: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as handle:
        writer = WebDatasetWriter(handle, text_key="text_prompt", image_key="images")
        for record in records:
            writer.write(record, [root / place for place in _paths(record)])
        writer.close()


def _with_bytes(record: dict[str, Any], root: Path) -> dict[str, Any]:
    turns = record.get("conversations")
    row = {**record, "conversations": None if turns is None else json.dumps(turns)}
    row["images"] = [{"bytes": (root / place).read_bytes(), "path": place} for place in _paths(record)]
    return row


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve records of the demo world in every form; those with pictures inside lie where no picture does."""
    root = tmp_path_factory.mktemp("forms")
    write_records(root, count=12, seed=1)
    write_start(root / "start", llm=TINY)
    records = [json.loads(line) for line in (root / "train.jsonl").read_text().splitlines()]
    assert {"text_prompt" in record for record in records} == {True, False}, "both forms are to be compared"
    turn = pa.struct([(key, pa.string()) for key in ("role", "type", "content", "image_path")])
    columns = {name for record in records for name in record} - {"conversations"}
    fields = [(name, pa.string()) for name in sorted(columns)]
    schema = pa.schema([*fields, ("conversations", pa.list_(turn))])
    write_parquet(root / "paths.parquet", records, schema=schema)
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([*fields, ("conversations", pa.string()), ("images", pa.list_(picture))])
    inside = root / "inside"
    inside.mkdir()
    rows = [_with_bytes(record, root) for record in records]
    write_parquet(inside / "bytes.parquet", rows, schema=schema)
    (inside / "shards").mkdir()
    _tar(inside / "train.tar", records, root)
    for number in range(3):
        part = slice(4 * number, 4 * number + 4)
        write_parquet(inside / "shards" / f"part-{number}.parquet", rows[part], schema=schema)
        _tar(inside / "tars" / f"{number:05d}.tar", records[part], root)
    return root


def _place(folder: Path, name: str) -> Path:
    return folder / name if name in FORMS[:2] else folder / "inside" / name


def _seen(path: Path, start: Path) -> list[Any]:
    """Samples with their pictures' contents in place of the places."""
    data = UnifiedGenerationDataset(path, start)
    assert not data.rejected
    found = []
    for example in data:
        files = [digest_file(path.parent / picture.path) for picture in example.images]
        pictures = [(picture.kind, picture.size) for picture in example.images]
        plan = [example.sample, example.num_tokens, example.num_text_targets, example.num_image_targets]
        found.append((example.key, plan, files, pictures))
    return found


@pytest.mark.parametrize("name", FORMS[1:])
def test_the_same_records_give_the_same_samples(folder: Path, name: str) -> None:
    wanted = _seen(folder / "train.jsonl", folder / "start")
    assert len(wanted) == 12 and any(files for _, _, files, _ in wanted)
    assert _seen(_place(folder, name), folder / "start") == wanted


def _config(folder: Path, data: Path, **changes: Any) -> StageConfig:
    places = {"data": data, "init_from": folder / "start", "lr": 5e-3, "samples_seen": 12}
    return stage_settings(load_preset("bagel_demo"), 2, {**places, "per_device_batch_size": 4, **changes})


def test_a_training_from_a_tar_by_the_command_has_the_weights_of_one_from_json(
    folder: Path, call: Any, tmp_path: Path
) -> None:
    digests = []
    for name in ("train.jsonl", "train.tar"):
        words = ("train", "--preset", "bagel_demo", "--out", tmp_path, "--name", name, "--json")
        words += ("--set", "joint.samples_seen=16", "--set", "joint.device=cpu")
        done = call(*words, "--data", _place(folder, name), "--init-from", folder / "start", expect=0)
        manifest = json.loads((Path(done.data["folder"]) / "manifest.json").read_text())
        assert manifest["facts"]["rows_trained"] == 12 and done.data["steps"] >= 1
        digests.append(manifest["facts"]["weights_digest"])
    assert digests[0] == digests[1]


def test_the_guides_script_takes_a_folder_of_shards(folder: Path, tmp_path: Path) -> None:
    shards = folder / "inside" / "tars"
    values = {"model_path": folder / "start", "train_data_path": shards, "output_dir": tmp_path / "out"}
    config = build_job(values).config
    assert (config.data, config.images) == (shards, shards)
    with pytest.raises(ConfigErrors, match="--val_data_path"):
        build_job({**values, "val_data_path": tmp_path / "none"})


def test_a_changed_shard_is_another_run_and_extracted_pictures_are_not(folder: Path, tmp_path: Path) -> None:
    shards = tmp_path / "set"
    for number in range(2):
        records = [{"id": str(n), "text_prompt": "red"} for n in range(number + 1)]
        with_pictures = [{**record, "image_path": "p.png"} for record in records]
        (tmp_path / "p.png").write_bytes(next((folder / "images").rglob("*.png")).read_bytes())
        _tar(shards / f"{number}.tar", with_pictures, tmp_path)
    config = _config(folder, shards)
    before = start_digests(config)["data"]
    run_stage(config, out=tmp_path / "run", progress=Callback())
    assert (shards / ".pictures").is_dir() and start_digests(config)["data"] == before
    _tar(shards / "1.tar", [{"id": "9", "text_prompt": "blue", "image_path": "p.png"}], tmp_path)
    assert start_digests(config)["data"] != before
    with pytest.raises(BetterSynthError, match="other settings or inputs"):
        run_stage(config, out=tmp_path / "run", progress=Callback())


def test_a_mixture_of_formats_names_shard_and_key_of_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    bad = {"id": "no-prompt", "text_prompt": "", "image_path": "x.png"}
    gone = {"id": "gone", "text_prompt": "red", "image_path": "nowhere.png"}
    write_parquet(tmp_path / "part" / "a-0.parquet", [bad])
    write_parquet(tmp_path / "part" / "a-1.parquet", [gone])
    places = [_place(folder, name) for name in ("train.jsonl", "bytes.parquet", "tars")] + [tmp_path / "part"]
    lines = "".join(f"  - {{data: {place}, weight: {n}}}\n" for n, place in enumerate(places, 1))
    (tmp_path / "mix.yaml").write_text(f"datasets:\n{lines}")
    data = UnifiedGenerationDataset(tmp_path / "mix.yaml", folder / "start", max_bad_ratio=0.1)
    assert len(data) == 36 and [source.data for source in data.data.sources] == places
    assert [item.key for item in data.rejected] == ["part:a-0.parquet:no-prompt", "part:a-1.parquet:gone"]
    assert "text_prompt: is empty" in data.rejected[0].detail and "nowhere.png" in data.rejected[1].detail
    with pytest.raises(DataError) as caught:
        UnifiedGenerationDataset(tmp_path / "mix.yaml", folder / "start", max_bad_ratio=0.0)
    assert all(text in caught.value.render() for text in ("part:a-0.parquet:no-prompt", "part:a-1.parquet:gone"))
    (tmp_path / "wrong.yaml").write_text("datasets:\n  - {data: no.tar}\n  - {data: mix.yaml}\n")
    with pytest.raises(ConfigErrors) as errors:
        read_sources(tmp_path / "wrong.yaml", tmp_path)
    wanted = [f"{tmp_path / 'wrong.yaml'} datasets[{number}]" for number in range(2)]
    assert [item.where for item in errors.value.problems] == wanted


def test_members_that_are_no_part_of_a_record_are_counted_and_said(folder: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copy(folder / "inside" / "train.tar", tmp_path / "more.tar"))
    with tarfile.open(whole, "a") as archive:
        for name in ("00000011.cls", "00000011.npy", "._00000011.json"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"7"))
    plain, more = (
        UnifiedGenerationDataset(path, folder / "start") for path in (folder / "inside" / "train.tar", whole)
    )
    assert len(plain) == len(more) == 12 and not any("members" in note for note in plain.notes)
    (note,) = (note for note in more.notes if "members" in note)
    assert note.startswith("3 members") and ".cls 1, .npy 1, hidden files 1" in note
