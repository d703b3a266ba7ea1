"""Data-Juicer recipes through the engine: what its keys do here, and what Data-Juicer 1.6.1 was seen to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bettersynth.cli import dj
from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import Recipe, build_recipe, load_recipe
from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import ConfigErrors, DataError
from bettersynth.engine.local import process
from bettersynth.engine.plan import check_steps, plan, read_recipe
from bettersynth.engine.preflight import preflight
from bettersynth.engine.rounding import through_json
from bettersynth.formats.jsonl import read_rows, write_rows

RECIPES = Path(__file__).parents[2] / "data" / "recipes"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """The two files that Data-Juicer was run on when the facts below were recorded."""
    for name, count in (("a", 5), ("b", 4)):
        write_rows(
            tmp_path / f"{name}.jsonl",
            (
                {"id": f"{name}{i}", "text": f"{name} text  number\u00a0{i} " + "x" * i * 3, "k": i}
                for i in range(count)
            ),
        )
    return tmp_path


def build(text: str, base: Path) -> Recipe:
    return build_recipe(parse_yaml(text, name="r.yaml"), base=base, check_steps=check_steps)


def read(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path) if isinstance(row, dict)]


def test_stats_are_rounded_as_pandas_does_it() -> None:
    """Recorded from pandas 3.1.1: ``ujson_loads(ujson_dumps(v))`` of 668 numbers."""
    recorded = json.loads((RECIPES / "rounded_stats.json").read_text())
    before, after = (np.array(column, np.float64) for column in zip(*recorded, strict=True))
    assert (through_json(before) == after).all() and len(before) > 600
    assert np.isnan(through_json(np.array([np.nan, np.inf]))).all()


def test_the_executor_of_data_juicer_is_imitated_when_asked(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"text": "abcdefg..."}, {"text": "abcdefgh.."}])  # 0.3 and 0.2 special
    text = "dataset_path: a.jsonl\nprocess:\n  - special_characters_filter: {max_ratio: 0.3}\n"
    exact = process(build(text, tmp_path), out=tmp_path / "o", workers=1)
    rounded = process(build(text + "compat: dj-executor\n", tmp_path), out=tmp_path / "p", workers=1)
    assert (exact.facts["rows_out"], rounded.facts["rows_out"]) == (2, 1)


def test_a_mixture_draws_the_rows_that_data_juicer_draws(rows: Path) -> None:
    """Recorded with ``max_sample_num: 12``, weights 3 and 1; the order is Data-Juicer's, too."""
    text = "dataset: {max_sample_num: 12, configs: [{path: a.jsonl, weight: 3}, {path: b.jsonl}]}\nprocess: []\n"
    process(build(text, rows), out=rows / "o", workers=1)
    drawn = [row["id"] for row in read(rows / "o" / "processed_data.jsonl")]
    assert drawn == ["a4", "a2", "a3", "a1", "a0", "a4", "a2", "a3", "a1", "b3", "b2", "b1"]
    process(build(text.replace("12", "3"), rows), out=rows / "o", workers=1)
    assert [row["id"] for row in read(rows / "o" / "processed_data.jsonl")] == ["a4", "a2", "a3"]


def test_shards_and_trace_have_data_juicers_names_and_layout(rows: Path) -> None:
    text = (
        "dataset_path: a.jsonl\nexport_path: out/res.jsonl\nexport_shard_size: 100\nwork_dir: wd\njob_id: j\n"
        "open_tracer: true\ntrace_num: 2\ntrace_keys: [id]\nop_list_to_trace: [whitespace_normalization_mapper, "
        "text_length_filter]\nprocess:\n  - whitespace_normalization_mapper:\n  - text_length_filter: {min_len: 20}\n"
        "  - document_deduplicator:\n"
    ).replace("work_dir: wd", f"work_dir: {rows}/wd")
    artifact = process(build(text, rows), out=rows / "o", workers=1)
    names = artifact.facts["data_files"]
    assert names[0] == f"res-00-of-0{len(names)}.jsonl" and len(names) > 1
    assert [row["id"] for name in names for row in read(rows / "o" / name)] == ["a1", "a2", "a3", "a4"]
    assert len(read(rows / "o" / "res_stats.jsonl")) == 4
    folder = rows / "wd" / "j" / "trace"
    changed = read(folder / "sample_trace-whitespace_normalization_mapper.jsonl")
    assert [list(row) for row in changed] == [["id", "original_text", "processed_text"]] * 2
    (dropped,) = read(folder / "sample_trace-text_length_filter.jsonl")
    assert dropped == {"id": "a0", "text": "a text  number 0", "k": 0, "__dj__stats__": {"text_len": 16}}
    assert not list(folder.glob("duplicate-*"))


def test_a_step_may_have_columns_of_its_own(tmp_path: Path) -> None:
    row = {"id": 1, "text": "stays  as", "title": "a   b", "meta": {"alt": "x\u00a0y"}}
    write_rows(tmp_path / "a.jsonl", [row, {**row, "id": 2, "title": None}])
    text = (
        "dataset_path: a.jsonl\nmax_failed_ratio: 1.0\nprocess:\n"
        "  - whitespace_normalization_mapper: {text_key: meta.alt}\n"
        "  - text_length_filter: {text_key: title, min_len: 5, max_len: 5, index_key: place}\n"
        "  - text_length_filter: {text_key: meta.alt, min_len: 3, max_len: 3}\n"
    )
    process(build(text, tmp_path), out=tmp_path / "o", workers=1)
    assert read(tmp_path / "o" / "processed_data.jsonl") == [{**row, "meta.alt": "x y", "place": 0}]
    (bad,) = read(tmp_path / "o" / "quarantine.jsonl")
    assert "field 'title' is missing or null" in bad["error"] and bad["operator"] == "text_length_filter"


def test_required_fields_and_all_text_keys_are_checked_per_row(tmp_path: Path) -> None:
    good = {"id": 1, "text": "a", "title": "t", "n": 1}
    write_rows(tmp_path / "a.jsonl", [good, {**good, "title": None}, {**good, "n": "1"}, {**good, "n": True}])
    text = (
        "dataset_path: a.jsonl\ntext_keys: [text, title]\nmax_failed_ratio: 1.0\n"
        "validators: [{type: required_fields, required_fields: [n], field_types: {n: int}}]\nprocess: []\n"
    )
    artifact = process(build(text, tmp_path), out=tmp_path / "o", workers=1)
    assert artifact.facts["rows_out"] == 1
    errors = [row["error"] for row in read(tmp_path / "o" / "quarantine.jsonl")]
    assert "required field 'title'" in errors[0] and errors[1] == "field 'n' must be int, got str"
    with pytest.raises(DataError, match="3 of 4 rows failed"):
        process(build(text + "skip_op_error: false\n", tmp_path), out=tmp_path / "p", workers=1)


def test_preflight_finds_every_mistake_at_once(rows: Path) -> None:
    (rows / "r.yaml").write_text(
        "dataset_path: a.jsonl\ntext_keys: txt\nexport_path: out/res\nimage_key: images\n"
        "npp: 3\nop_list_to_trace: [text_filter]\n"
        "process:\n  - text_length_fliter:\n  - text_length_filter: {min_len: [1]}\n"
        "  - image_text_similarity_filter: {hf_clip: /no/model}\n"
    )
    with pytest.raises(ConfigErrors) as caught:
        read_recipe(rows / "r.yaml", check_recipe=preflight)
    shown = caught.value.render()
    assert "did you mean 'np'?" in shown and "did you mean 'text_length_filter'?" in shown and "min_len" in shown
    good = (rows / "r.yaml").read_text().replace("npp: 3\n", "").replace("text_length_fliter", "text_length_filter")
    (rows / "r.yaml").write_text(good.replace("{min_len: [1]}", "{min_len: 1}"))
    with pytest.raises(ConfigErrors) as caught:
        read_recipe(rows / "r.yaml", check_recipe=preflight)
    shown = caught.value.render()
    for part in ("no row has the column 'txt'", "did you mean 'text'?", "does not say its kind", "no model in this"):
        assert part in shown
    assert "no row has the column 'images'" in shown and "not in the process list" in shown
    assert not (rows / "out").exists()


def test_the_captioning_recipe_of_2025_runs(data: Path, tmp_path: Path) -> None:
    for name in ("rows.jsonl", "images"):
        source = data / name.replace("rows", "d")
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    shutil.copy(RECIPES / "image_captioning.yaml", tmp_path / "r.yaml")
    recipe = load_recipe(tmp_path / "r.yaml", check_steps=check_steps, check_recipe=preflight)
    assert "gpu_batch_size, mem_required, trust_remote_code" in plan(recipe).notices[-1]
    artifact = process(recipe, out=tmp_path / "out", workers=1)
    assert artifact.facts["rows_out"] == 58 and all(
        row["text"].startswith("<image>") for row in read(tmp_path / "out" / "res.jsonl")
    )


def test_old_names_are_served_or_named(recipe: Any) -> None:
    planned = plan(recipe("  - word_num_filter: {min_num: 3}\n  - ray_document_deduplicator: {redis_address: x}\n"))
    assert [operator.name for operator in planned.operators] == ["words_num_filter", "document_deduplicator"]
    assert "word_num_filter is served as words_num_filter" in planned.notices
    with pytest.raises(Exception, match="use 'image_captioning_mapper' in its place"):
        recipe("  - image_captioning_from_gpt4v_mapper: {mode: description}\n")


CUSTOM = '''
"""Upper case."""
from dataclasses import dataclass
from bettersynth.ops.base import TextMapper

@dataclass(frozen=True, kw_only=True, slots=True)
class ShoutMapper(TextMapper):
    """Upper case."""
    def rewrite(self, text):
        return text.upper()
'''


def test_operators_from_files_of_the_user(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bettersynth.ops._catalog import OPERATORS

    monkeypatch.setattr(OPERATORS, "__dict__", dict(OPERATORS.__dict__) | {"_modules": dict(OPERATORS._modules)})
    (rows / "ops").mkdir()
    (rows / "ops" / "shout_mapper.py").write_text(CUSTOM)
    text = f"dataset_path: a.jsonl\ncustom_operator_paths: {rows}/ops\nprocess:\n  - shout_mapper:\n"
    process(build(text, rows), out=rows / "o", workers=2)
    assert read(rows / "o" / "processed_data.jsonl")[0]["text"].startswith("A TEXT")
    (rows / "ops" / "broken_mapper.py").write_text("raise RuntimeError('x')\n")
    with pytest.raises(Exception, match="this file holds no operator"):
        build(text, rows)


def test_data_juicers_commands(rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("BETTERSYNTH_LANG", "en")
    (rows / "r.yaml").write_text(
        f"dataset_path: {rows}/a.jsonl\nnp: 1\nprocess:\n  - clean_links_mapper:\n  - text_length_filter:\n"
    )
    words = ["--config", str(rows / "r.yaml"), "--export_path", str(rows / "o" / "res.jsonl")]
    assert dj.process_main([*words, "--text_length_filter.min_len", "21"]) == 0
    assert len(read(rows / "o" / "res.jsonl")) == 3
    assert dj.process_main([*words, "--text_length_filter.min_len", "[]", "--nq", "1"]) == 2
    assert "2 problems" in capsys.readouterr().err
    assert dj.analyze_main([*words[:3], str(rows / "p" / "res.jsonl"), "--json", "--percentiles", "[0.1]"]) == 0
    table = json.loads(capsys.readouterr().out)["overall"]["text_len"]
    assert table["count"] == 5 and table["max"] == 29 and "10%" in table
    assert (rows / "p" / "analysis" / "overall.md").is_file() and Artifact.exists(rows / "p")
    for _ in range(2):  # an analysis may replace an analysis, but not what a recipe made of the rows
        assert dj.analyze_main([*words[:3], str(rows / "p" / "res.jsonl")]) == 0
    before = (rows / "o" / "res.jsonl").read_bytes()
    assert dj.analyze_main(words) == 2 and "would replace" in capsys.readouterr().err
    assert (rows / "o" / "res.jsonl").read_bytes() == before
    assert dj.process_main([]) == 2
