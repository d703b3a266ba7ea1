"""The lines of a result: written by the shards of the last stage, joined in order, and the scores found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import build_recipe
from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import DataError
from bettersynth.engine import source, trace
from bettersynth.engine.jobs import BASE_SCHEMA, LineSettings
from bettersynth.engine.lines import lines_of
from bettersynth.engine.local import process
from bettersynth.ops.base import STATS

PROCESS = "  - whitespace_normalization_mapper:\n  - words_num_filter: {min_num: 5}\n  - alphanumeric_filter:\n"


def batch_of(**stats: Any) -> pa.RecordBatch:
    rows = len(next(iter(stats.values())))
    record = [json.dumps({"id": str(n), "text": "old", "k": 1.50}) for n in range(rows)]
    text = [f"t\u00e9xt {n}" for n in range(rows)]
    columns = [[0] * rows, list(range(rows)), [0] * rows, list("0123456789"[:rows]), text, [[]] * rows, record]
    base = [pa.array(values, field.type) for values, field in zip(columns, BASE_SCHEMA, strict=True)]
    arrays = [*base, *(values if isinstance(values, pa.Array) else pa.array(values) for values in stats.values())]
    return pa.RecordBatch.from_arrays(arrays, [*BASE_SCHEMA.names, *(STATS + name for name in stats)])


@pytest.mark.parametrize(
    "stats",
    [
        {"n": [1, -2, 30], "share%d": [0.1, 1e-7, 1e22], 'odd"name': [float("nan"), float("inf"), -0.0]},
        {"n": [1, None, 3], "share": [0.5, 0.25, 1.0]},
        {"widths": [[1, 2], [], [3]], "n": [1, 2, 3]},
        {"n": pa.array([1, 2, 3], pa.int32()), "single": pa.array([0.1, 0.2, 0.3], pa.float32())},
        {"n": pa.array([], pa.int64())},
    ],
)
@pytest.mark.parametrize("keep_stats", [False, True])
def test_scores_are_written_as_json_writes_them(stats: dict[str, Any], keep_stats: bool) -> None:
    batch = batch_of(**stats)
    lines, beside = lines_of(batch, LineSettings("text", "images", keep_stats, 7))
    columns = {name: batch.column(STATS + name).to_pylist() for name in stats}
    expected = [
        orjson.dumps({"__dj__stats__": dict(zip(columns, row, strict=True))})
        for row in zip(*columns.values(), strict=True)
    ]
    assert beside.splitlines() == expected
    rows = [orjson.loads(line) for line in lines.splitlines()]
    assert [row["text"] for row in rows] == batch.column("text").to_pylist() and all(row["k"] == 1.5 for row in rows)
    inside = [orjson.dumps({"__dj__stats__": row["__dj__stats__"]}) for row in rows if keep_stats]
    assert inside == expected * keep_stats


def test_the_trace_finds_the_scores_of_kept_rows_in_the_stats_file(recipe: Any, tmp_path: Path) -> None:
    process(recipe(PROCESS), out=tmp_path / "o", workers=1)
    lines = (tmp_path / "o" / "processed_data_stats.jsonl").read_text().splitlines()
    scores = [json.loads(line)["__dj__stats__"] for line in lines]
    kept = list(trace.load(tmp_path / "o", action="kept"))
    assert [event["scores"] for event in kept] == scores and {len(one) for one in scores} == {2}
    assert trace.history(tmp_path / "o", kept[3]["id"])[-1]["scores"] == scores[3]
    process(recipe("  - whitespace_normalization_mapper:\n"), out=tmp_path / "o", workers=1)
    assert {str(event["scores"]) for event in trace.load(tmp_path / "o", action="kept")} == {"{}"}


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damaged_lines_are_made_again(damage: str, recipe: Any, tmp_path: Path) -> None:
    good = process(recipe(PROCESS), out=tmp_path / "o", workers=1)
    (tmp_path / "o" / "manifest.json").unlink()
    (victim,) = (tmp_path / "o" / ".work" / "stages").glob("*/000000.lines")
    data = victim.read_bytes()
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(data[:-20] if damage == "cut" else data.replace(b"a", b"b", 1))
        with pytest.raises(DataError, match="damaged"):
            process(recipe(PROCESS), out=tmp_path / "o", workers=1)
        assert not Artifact.exists(tmp_path / "o") and not [p for p in (tmp_path / "o").glob(".*") if p.name != ".work"]
    assert process(recipe(PROCESS), out=tmp_path / "o", workers=1).digest == good.digest


@pytest.mark.parametrize("damage", ["arrow", "trace", "verdict"])
def test_other_damaged_files_are_made_again(damage: str, recipe: Any, tmp_path: Path) -> None:
    text = "  - words_num_filter: {min_num: 2}\n  - document_deduplicator:\n"
    good, stages = process(recipe(text), out=tmp_path / "o", workers=1), tmp_path / "o" / ".work" / "stages"
    (tmp_path / "o" / "manifest.json").unlink()
    for path in [*stages.glob("01-*/*.json"), *(stages.glob("verdict-*.json") if damage == "arrow" else ())]:
        path.unlink()
    victim = next(stages.glob("verdict-*.arrow" if damage == "verdict" else f"00-*/000000.{damage}"))
    data = victim.read_bytes()
    victim.write_bytes(data[:-30] + bytes(30) if damage == "trace" else data[:-30])
    with pytest.raises(DataError, match="damaged"):
        process(recipe(text), out=tmp_path / "o", workers=1)
    assert process(recipe(text), out=tmp_path / "o", workers=1).digest == good.digest


@pytest.mark.parametrize("left", [0, 100])
def test_a_trace_that_a_power_cut_has_shortened_is_made_again(left: int, recipe: Any, tmp_path: Path) -> None:
    good = process(recipe(PROCESS), out=tmp_path / "o", workers=1)
    (tmp_path / "o" / "manifest.json").unlink()
    (victim,) = (tmp_path / "o" / ".work" / "stages").glob("01-*/000000.trace")
    victim.write_bytes(victim.read_bytes()[:left])
    again = process(recipe(PROCESS), out=tmp_path / "o", workers=1)
    assert again.digest == good.digest and (again.run["shards_cached"], again.run["shards_computed"]) == (1, 1)


def test_long_rows_make_small_shards(recipe: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = process(recipe(PROCESS), out=tmp_path / "a", workers=1)
    monkeypatch.setattr(source, "_MAX_BYTES", (data / "d.jsonl").stat().st_size // 4)
    parts = process(recipe(PROCESS), out=tmp_path / "b", workers=1)
    assert whole.run["shards_computed"] == 2 and parts.run["shards_computed"] in (8, 10)
    names = [name for name in whole.files if name != trace.TRACE_FILE]  # its order is that of the shards
    assert {name: parts.files[name] for name in names} == {name: whole.files[name] for name in names}


def test_other_keys_for_the_lines_make_only_the_last_stage_again(recipe: Any, tmp_path: Path) -> None:
    process(recipe(PROCESS), out=tmp_path / "o", workers=1)
    other = process(recipe(PROCESS, keep_stats_in_res_ds=True), out=tmp_path / "o", workers=1)
    assert (other.run["shards_cached"], other.run["shards_computed"]) == (1, 1)
    first = json.loads((tmp_path / "o" / "processed_data.jsonl").read_text().splitlines()[0])
    assert set(first["__dj__stats__"]) == {"num_words", "alnum_ratio"}


def test_what_an_earlier_run_said_of_a_row_stays_only_where_stats_are_kept(tmp_path: Path) -> None:
    old = {"__dj__stats__": {"text_len": 99, "other": 1}, "__dj__meta__": {"tags": ["a"]}}
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": "abc", **old}) + "\n")
    text = "dataset_path: d.jsonl\nkeep_stats_in_res_ds: {}\nprocess: [{}]\n"
    for keep, step, said in (
        ("false", "text_length_filter: {min_len: 1}", {}),
        ("false", "fix_unicode_mapper", {}),
        ("true", "text_length_filter: {min_len: 1}", {**old, "__dj__stats__": {"text_len": 3, "other": 1}}),
        ("true", "fix_unicode_mapper", old),
    ):
        made = build_recipe(parse_yaml(text.format(keep, step), name="r.yaml"), base=tmp_path)
        process(made, out=tmp_path / "o", workers=1)
        assert json.loads((tmp_path / "o" / "processed_data.jsonl").read_text()) == {"text": "abc", **said}
