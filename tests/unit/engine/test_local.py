"""The executor: results, accounting, quarantine, determinism, cache, trace."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import DataError, RunInterrupted
from bettersynth.core.lang import set_language
from bettersynth.engine import trace
from bettersynth.engine.analyze import analyze, histograms
from bettersynth.engine.local import accounting_of, process
from bettersynth.engine.plan import plan
from bettersynth.engine.status import is_finished, status
from bettersynth.engine.track import broken_rules, check_challenge
from bettersynth.formats.jsonl import read_rows, write_rows
from bettersynth.ops._catalog import OPERATORS

EVERYTHING = """
  - fix_unicode_mapper:
  - words_num_filter: {min_num: 4}
  - image_text_similarity_filter: {hf_clip: fake, min_score: null}
  - image_caption_nll_filter: {hf_img2seq: fake, adaptive_threshold: {method: quantile, high: 0.1}}
  - quality_score_filter: {signals: {image_text_similarity: 1, image_caption_nll: -1}, min_score: 0.1}
  - recaption_mapper: {hf_img2seq: fake, when: {quality_score: {below: 0.4}}}
  - document_minhash_deduplicator: {keep_short: true}
  - image_captioning_mapper: {hf_img2seq: fake}
  - qa_from_caption_generator:
  - repeat_to_budget_selector: {num_samples: 100, prefer: quality_score}
"""
FILES = ("processed_data.jsonl", "processed_data_stats.jsonl", "quarantine.jsonl", "trace.arrows")


def rows_of(folder: Path, name: str = "processed_data.jsonl") -> list[dict[str, Any]]:
    return [row for _, row in read_rows(folder / name) if isinstance(row, dict)]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_rows_keep_their_other_fields_and_their_order(recipe: Any, tmp_path: Path) -> None:
    artifact = process(recipe("  - words_num_filter: {min_num: 5}\n"), out=tmp_path / "o", workers=1)
    rows = rows_of(tmp_path / "o")
    assert [list(row) for row in rows[:1]] == [["id", "images", "text", "extra"]]
    assert rows[0]["extra"] == {"n": int(rows[0]["id"])}
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert rows[0]["images"][0].startswith("images/")  # relative, as it came
    assert artifact.facts["rows_out"] == len(rows) and artifact.verify() == []
    assert Artifact.load(tmp_path / "o", kind="dataset").digest == artifact.digest


def test_every_row_is_accounted_for(recipe: Any, tmp_path: Path) -> None:
    artifact = process(recipe(EVERYTHING), out=tmp_path / "o", workers=1)
    entries = accounting_of(artifact)
    assert entries[0].operator == "read" and (entries[0].rows_in, entries[0].quarantined) == (60, 2)
    assert all(entry.is_balanced() for entry in entries)
    assert all(a.rows_out == b.rows_in for a, b in itertools.pairwise(entries))
    assert entries[-1].rows_out == 100 == len(rows_of(tmp_path / "o"))
    assert sum(entry.rows_made for entry in entries) > 0
    # ids are never changed, and no key occurs twice
    assert {row["id"] for row in rows_of(tmp_path / "o")} <= {f"{n:04d}" for n in range(60)}
    kept = [event["key"] for event in trace.load(tmp_path / "o", action="kept")]
    assert len(kept) == len(set(kept)) == 100


def test_the_quarantine_names_line_operator_and_reason(recipe: Any, tmp_path: Path) -> None:
    process(recipe("  - fix_unicode_mapper:\n"), out=tmp_path / "o", workers=1)
    first, second = rows_of(tmp_path / "o", "quarantine.jsonl")
    assert first["line"] == 8 and "not valid JSON" in first["error"] and first["record"] == '{"id": broken}'
    assert second["line"] == 21 and second["error"] == "image not found: images/none.png" and second["id"] == "0020"
    assert second["operator"] == "read" and json.loads(second["record"])["id"] == "0020"


def test_bytes_do_not_depend_on_workers_place_or_language(recipe: Any, data: Path, tmp_path: Path) -> None:
    process(recipe(EVERYTHING), out=tmp_path / "a", workers=1)
    moved = shutil.copytree(data, tmp_path / "elsewhere")
    set_language("zh")
    try:
        artifact = process(recipe(EVERYTHING, dataset_path=str(moved / "d.jsonl")), out=tmp_path / "b", workers=2)
    finally:
        set_language("en")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert artifact.digest == Artifact.load(tmp_path / "a").digest


def test_running_again_does_nothing_and_a_new_threshold_keeps_the_scores(recipe: Any, tmp_path: Path) -> None:
    def run(low: float, events: list[Any] | None = None) -> Artifact:
        text = f"  - image_text_similarity_filter: {{hf_clip: fake, min_score: {low}}}\n"
        return process(
            recipe(text), out=tmp_path / "o", workers=1, progress=events.append if events is not None else None
        )

    first, events = run(0.1), []
    manifest = (tmp_path / "o" / "manifest.json").stat().st_mtime_ns
    run(0.1, events)
    assert not events and (tmp_path / "o" / "manifest.json").stat().st_mtime_ns == manifest
    second = run(0.2)
    assert (second.run["shards_cached"], second.run["shards_computed"]) == (1, 1)
    assert second.facts["rows_out"] < first.facts["rows_out"]


def test_an_earlier_versions_trace_does_not_stay_beside_a_new_result(recipe: Any, tmp_path: Path) -> None:
    out = tmp_path / "o"
    process(recipe("  - words_num_filter: {min_num: 5}\n"), out=out, workers=1)
    (out / "trace.parquet").write_bytes(b"as versions before trace.arrows wrote it")
    process(recipe("  - words_num_filter: {min_num: 5}\n"), out=out, workers=1)
    assert (out / "trace.parquet").is_file()  # nothing was made anew
    process(recipe("  - words_num_filter: {min_num: 6}\n"), out=out, workers=1)
    assert not (out / "trace.parquet").exists() and (out / "trace.arrows").is_file()
    named = recipe("  - words_num_filter: {min_num: 6}\n", export_path="x/trace.parquet")
    assert process(named, out=out, workers=1).facts["data"] == "trace.parquet"
    process(named, out=out, workers=1)
    assert (out / "trace.parquet").is_file()


def test_a_changed_picture_or_line_is_noticed(recipe: Any, data: Path, tmp_path: Path) -> None:
    made = recipe("  - image_shape_filter: {min_width: 45}\n")
    before = process(made, out=tmp_path / "o", workers=1)
    shutil.copy(data / "images" / "11.png", data / "images" / "0.png")
    after = process(made, out=tmp_path / "o", workers=1)
    assert after.facts["rows_out"] == before.facts["rows_out"] + 5
    with (data / "d.jsonl").open("a") as handle:
        handle.write('{"id": "new", "text": "x", "images": ["images/11.png"]}\n')
    assert process(made, out=tmp_path / "o", workers=1).facts["rows_out"] == after.facts["rows_out"] + 1


def test_the_trace_tells_every_rows_story(recipe: Any, tmp_path: Path) -> None:
    artifact = process(recipe(EVERYTHING), out=tmp_path / "o", workers=1)
    actions: dict[str, int] = {}
    for event in trace.load(tmp_path / "o"):
        actions[event["action"]] = actions.get(event["action"], 0) + 1
    entries = accounting_of(artifact)
    assert actions["dropped"] == sum(sum(entry.dropped.values()) for entry in entries)
    assert actions["changed"] == sum(entry.changed for entry in entries)
    assert actions["made"] == sum(entry.rows_made for entry in entries)
    assert actions["quarantined"] == 2
    changed = next(iter(trace.load(tmp_path / "o", action="changed", operator="recaption_mapper")))
    assert changed["before"] != changed["after"] and changed["scores"]["quality_score"] < 0.4
    assert changed["image"].startswith("images/")
    story = trace.history(tmp_path / "o", changed["id"])
    assert [event["step"] for event in story if event["key"] == changed["key"]] == sorted(
        event["step"] for event in story if event["key"] == changed["key"]
    )
    assert trace.history(tmp_path / "o", "0007") == []  # line 8 has no readable id ...
    assert trace.history(tmp_path / "o", "0:8")[0]["action"] == "quarantined"  # ... but a key


def test_one_bad_row_is_set_aside_alone(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bettersynth.ops.mappers.fix_unicode_mapper import FixUnicodeMapper

    def apply(self: Any, batch: Any, ctx: Any) -> Any:
        if any("sky" in text and "dog" in text for text in batch.column("text").to_pylist()):
            raise ZeroDivisionError("one")
        return batch

    monkeypatch.setattr(FixUnicodeMapper, "apply", apply)
    artifact = process(recipe("  - fix_unicode_mapper:\n", max_failed_ratio=0.9), out=tmp_path / "o", workers=1)
    bad = [row for row in rows_of(tmp_path / "o", "quarantine.jsonl") if row["operator"] == "fix_unicode_mapper"]
    assert bad and all(row["error"] == "ZeroDivisionError: one" and "sky" in row["record"] for row in bad)
    assert artifact.facts["rows_out"] == 58 - len(bad)


def test_too_many_failures_stop_the_run(recipe: Any, tmp_path: Path) -> None:
    made = recipe("  - fix_unicode_mapper:\n", max_failed_ratio=0.02)
    with pytest.raises(DataError) as caught:
        process(made, out=tmp_path / "o", workers=1)
    assert "2 of 60 rows failed" in caught.value.message and "line 8" in str(caught.value.got)
    assert len(rows_of(tmp_path / "o", "quarantine.jsonl")) == 2 and not Artifact.exists(tmp_path / "o")


def test_a_result_read_from_another_folder_says_where_its_pictures_are(recipe: Any, data: Path, tmp_path: Path) -> None:
    process(recipe("  - fix_unicode_mapper:\n"), out=tmp_path / "one", workers=1)
    again = {"dataset_path": str(tmp_path / "one" / "processed_data.jsonl")}
    with pytest.raises(DataError) as caught:
        process(recipe("  - fix_unicode_mapper:\n", **again), out=tmp_path / "two", workers=1)
    root = str(caught.value.hint).rpartition("image_root=")[2]
    assert root == str(data)
    process(recipe("  - fix_unicode_mapper:\n", **again, image_root=root), out=tmp_path / "two", workers=1)
    with pytest.raises(DataError) as caught:
        process(recipe("  - fix_unicode_mapper:\n", image_root=str(tmp_path)), out=tmp_path / "two", workers=1)
    assert "max_failed_ratio" in str(caught.value.hint)


def test_an_operator_that_changes_ids_is_a_bug_that_stops_the_run(
    recipe: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    from bettersynth.core.errors import BetterSynthError
    from bettersynth.ops.mappers.fix_unicode_mapper import FixUnicodeMapper

    monkeypatch.setattr(FixUnicodeMapper, "apply", lambda self, batch, ctx: batch.slice(1))
    with pytest.raises(BetterSynthError, match="changed ids"):
        process(recipe("  - fix_unicode_mapper:\n"), out=tmp_path / "o", workers=1)


def test_ctrl_c_says_how_to_go_on(recipe: Any, tmp_path: Path) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(RunInterrupted) as caught:
        process(recipe("  - fix_unicode_mapper:\n"), out=tmp_path / "o", workers=1, progress=stop)
    assert caught.value.exit_code == 130 and "same command again" in str(caught.value.hint)
    assert process(recipe("  - fix_unicode_mapper:\n"), out=tmp_path / "o", workers=1).facts["rows_out"] == 58


def test_a_damaged_intermediate_result_is_made_again(recipe: Any, tmp_path: Path) -> None:
    process(recipe(EVERYTHING), out=tmp_path / "o", workers=1)
    good = contents(tmp_path / "o")
    victim = sorted((tmp_path / "o" / ".work" / "stages").glob("01-*/000000.arrow"))[0]
    victim.write_bytes(victim.read_bytes()[:-20])
    (tmp_path / "o" / "manifest.json").unlink()
    for marker in (tmp_path / "o" / ".work" / "stages").glob("02-*/*.json"):
        marker.unlink()
    with pytest.raises(DataError, match="damaged"):
        process(recipe(EVERYTHING), out=tmp_path / "o", workers=1)
    process(recipe(EVERYTHING), out=tmp_path / "o", workers=1)
    assert contents(tmp_path / "o") == good


@pytest.mark.parametrize("form", ["jsonl.gz", "parquet", "json", "folder"])
def test_other_forms_of_input(form: str, recipe: Any, data: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row for _, row in read_rows(data / "d.jsonl") if isinstance(row, dict) and row["id"] != "0020"]
    path = data / f"e.{form}"
    if form == "jsonl.gz":
        path.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows)))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "json":
        path.write_text(json.dumps(rows))
    else:
        path = data / "more"
        (path / "images").parent.mkdir()
        shutil.copytree(data / "images", path / "images")
        write_rows(path / "a.jsonl", rows[:30])
        write_rows(path / "b.jsonl", rows[30:])
    made = recipe("  - fix_unicode_mapper:\n", dataset_path=str(path))
    process(made, out=tmp_path / "o", workers=1)
    assert [row["id"] for row in rows_of(tmp_path / "o")] == [row["id"] for row in rows]


def test_a_llava_file_is_read_as_rows(recipe: Any, data: Path, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a dog"}]
    (data / "s.json").write_text(json.dumps([{"id": "1", "image": "images/1.png", "conversations": turns}, {"id": 2}]))
    made = recipe("  - fix_unicode_mapper:\n", dataset_path=str(data / "s.json"), max_failed_ratio=0.5)
    artifact = process(made, out=tmp_path / "o", workers=1)
    assert rows_of(tmp_path / "o")[0]["text"] == "[[human]]: <image>\nWhat?\n[[gpt]]: a dog <|__dj__eoc|>"
    assert artifact.facts["quarantined"] == 1


def test_nested_text_stats_and_export_name(recipe: Any, data: Path, tmp_path: Path) -> None:
    write_rows(data / "n.jsonl", [{"meta": {"caption": "a &amp; b"}, "k": 1}])
    made = recipe(
        "  - clean_html_mapper:\n  - text_length_filter: {min_len: 1}\n",
        dataset_path=str(data / "n.jsonl"),
        text_keys="meta.caption",
        keep_stats_in_res_ds=True,
        export_path="x/res.jsonl",
    )
    process(made, out=tmp_path / "o", workers=1)
    assert rows_of(tmp_path / "o", "res.jsonl") == [
        {"meta": {"caption": "a & b"}, "k": 1, "__dj__stats__": {"text_len": 5}}
    ]


def test_an_empty_result_is_a_result(recipe: Any, tmp_path: Path) -> None:
    text = "  - text_length_filter: {min_len: 9999}\n  - document_deduplicator:\n  - image_shape_filter:\n"
    artifact = process(recipe(text), out=tmp_path / "o", workers=1)
    assert artifact.facts["rows_out"] == 0 and rows_of(tmp_path / "o") == []


def test_an_empty_input_is_no_mistake(recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    text = "  - document_deduplicator:\n  - clean_html_mapper:\n"
    artifact = process(recipe(text, dataset_path=str(tmp_path / "none.jsonl")), out=tmp_path / "o", workers=1)
    assert artifact.facts["rows_in"] == artifact.facts["rows_out"] == 0 and rows_of(tmp_path / "o") == []


def test_challenge_rows_are_checked(recipe: Any, data: Path, tmp_path: Path) -> None:
    text = "  - words_num_filter: {min_num: 4}\n  - image_captioning_mapper: {hf_img2seq: fake}\n"
    process(recipe(text, track="challenge"), out=tmp_path / "o", workers=1)
    assert check_challenge(tmp_path / "o" / "processed_data.jsonl", data / "d.jsonl") > 0
    good = {"id": "1", "images": ["a"], "text": "<image>x"}
    assert broken_rules([good], ["1"]) == []
    reasons = broken_rules(
        [{**good, "id": "2"}, {**good, "text": "[[human]]: <image>a"}, {**good, "images": []}], ["1"]
    )
    assert len(reasons) == 3 and "2" in reasons[0]


def test_statistics_of_a_data_set_and_of_what_a_recipe_changed(recipe: Any, data: Path, tmp_path: Path) -> None:
    found = analyze(data / "d.jsonl")
    assert found["rows"] == 59 and found["problems"]["image not found"] == 1
    assert sum(found["histograms"]["num_words"]["counts"]) == 59
    assert found["duplicates"]["image"] == 59 - 13 and found["stats"]["image_width"]["max"] == 51
    json.dumps(found)
    process(recipe(EVERYTHING), out=tmp_path / "o", workers=1)
    pairs = histograms(data / "d.jsonl", tmp_path / "o")
    for name in ("caption_len", "image_text_similarity", "image_caption_nll"):
        assert len(pairs[name]["edges"]) == len(pairs[name]["before"]) + 1 == len(pairs[name]["after"]) + 1
    assert sum(pairs["caption_len"]["after"]) == 100


def test_no_operator_is_left_out_of_the_registry() -> None:
    assert len(OPERATORS.names()) >= 30


def test_the_status_of_a_folder_tells_what_is_left(recipe: Any, tmp_path: Path) -> None:
    def planned(low: float) -> Any:
        return plan(
            recipe(f"  - image_text_similarity_filter: {{hf_clip: fake, min_score: {low}}}\n  - clean_html_mapper:\n")
        )

    before = status(planned(0.1), tmp_path / "o")
    assert [(s.state, s.reason) for s in before] == [("to do", "not run yet")] * 2
    assert not (tmp_path / "o").exists()
    process(planned(0.1).recipe, out=tmp_path / "o", workers=1)
    assert [s.state for s in status(planned(0.1), tmp_path / "o")] == ["done", "done"]
    assert is_finished(planned(0.1), tmp_path / "o")
    changed = status(planned(0.2), tmp_path / "o")
    assert [s.state for s in changed] == ["done", "to do"] and "changed" in changed[1].reason
    assert not is_finished(planned(0.2), tmp_path / "o")
