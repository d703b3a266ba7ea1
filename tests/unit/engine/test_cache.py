"""What is not done again: scores under new thresholds, models asked by another recipe; what is: rows set aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bettersynth.engine.local import process
from bettersynth.engine.plan import plan
from bettersynth.engine.scores import Scores
from bettersynth.engine.settings import shared_folder
from bettersynth.engine.status import status
from bettersynth.formats.jsonl import read_rows
from bettersynth.infer import fake

TEXT = "  - fix_unicode_mapper:\n  - words_num_filter: {min_num: %d}\n  - text_length_filter: {min_len: %d}\n"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Rows that each operator worked on, by name."""
    from bettersynth.ops._catalog import operator_class

    counted: dict[str, int] = {}

    def count(cls: Any, method: str) -> None:
        plain = getattr(cls, method)

        def counting(self: Any, batch: Any, ctx: Any) -> Any:
            counted[self.name] = counted.get(self.name, 0) + batch.num_rows
            return plain(self, batch, ctx)

        monkeypatch.setattr(cls, method, counting)

    count(operator_class("fix_unicode_mapper"), "apply")
    count(operator_class("words_num_filter"), "score")
    count(operator_class("text_length_filter"), "score")
    return counted


def ids(folder: Path) -> list[str]:
    return [str(row["id"]) for _, row in read_rows(folder / "processed_data.jsonl") if isinstance(row, dict)]


def test_a_new_threshold_computes_only_rows_that_were_never_scored(
    recipe: Callable[..., Any], tmp_path: Path, calls: dict[str, int]
) -> None:
    process(recipe(TEXT % (6, 30)), out=tmp_path / "o", workers=1)
    seen = calls["text_length_filter"]
    assert calls["fix_unicode_mapper"] == calls["words_num_filter"] == 58 and 0 < seen < 58
    calls.clear()
    process(recipe(TEXT % (6, 60)), out=tmp_path / "o", workers=1)
    process(recipe(TEXT % (9, 20)), out=tmp_path / "o", workers=1)
    assert not calls, "stricter or other thresholds need no new score"
    process(recipe(TEXT % (2, 20)), out=tmp_path / "o", workers=1)
    assert calls == {"text_length_filter": 58 - seen}  # rows that the first filter used to drop
    process(recipe(TEXT % (2, 20)), out=tmp_path / "fresh", workers=1)
    for name in ("processed_data.jsonl", "processed_data_stats.jsonl", "trace.arrows", "quarantine.jsonl"):
        assert (tmp_path / "o" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_a_damaged_score_file_is_no_harm(recipe: Callable[..., Any], tmp_path: Path, calls: dict[str, int]) -> None:
    process(recipe(TEXT % (6, 30)), out=tmp_path / "o", workers=1)
    (path,) = (tmp_path / "o" / ".work" / "scores").iterdir()
    path.write_bytes(path.read_bytes()[:50])
    calls.clear()
    process(recipe(TEXT % (7, 30)), out=tmp_path / "o", workers=1)
    assert calls["words_num_filter"] == 58 and Scores(None).find("x", pa.RecordBatch.from_pylist([]))[0] == {}


def test_recipes_over_one_pool_ask_the_model_once(
    recipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {}
    score, caption = fake.FakeScorer.score, fake.FakeCaptioner.caption

    def counted(name: str, method: Any) -> Any:
        def call(self: Any, images: Any, *args: Any, **options: Any) -> Any:
            asked[name] = asked.get(name, 0) + len(images)
            return method(self, images, *args, **options)

        return call

    monkeypatch.setattr(fake.FakeScorer, "score", counted("score", score))
    monkeypatch.setattr(fake.FakeCaptioner, "caption", counted("caption", caption))
    similar = "  - image_text_similarity_filter: {hf_clip: fake, min_score: 0.1}\n"
    write = "  - recaption_mapper: {hf_img2seq: fake, when: {image_text_similarity: {below: 0.5}}}\n"
    made = "  - image_captioning_mapper: {hf_img2seq: fake}\n"
    process(recipe(similar + write + made), out=tmp_path / "a", workers=1)
    first = dict(asked)
    assert first["score"] == 58 and first["caption"] > 0
    longer = "  - words_num_filter: {min_num: 5}\n"
    process(recipe(longer + similar + write + made), out=tmp_path / "b", workers=1)
    assert asked == first  # a subset of the same rows
    monkeypatch.setenv("BETTERSYNTH_CACHE", str(tmp_path / "elsewhere"))
    process(recipe(longer + similar + write + made), out=tmp_path / "c", workers=1)
    assert asked != first
    for name in ("processed_data.jsonl", "processed_data_stats.jsonl", "trace.arrows"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_the_shared_folder_is_the_workspaces(tmp_path: Path) -> None:
    assert shared_folder(tmp_path / "o") == tmp_path / ".bettersynth-cache"
    (tmp_path / "input").mkdir()
    (tmp_path / "output" / "x").mkdir(parents=True)
    assert shared_folder(tmp_path / "output" / "x" / "y") == tmp_path / "output" / ".bettersynth-cache"


def test_the_plan_says_what_is_kept_and_why_the_rest_runs(
    recipe: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    made = recipe(TEXT % (3, 10))
    process(made, out=tmp_path / "o", workers=1)
    assert [stage.state for stage in status(plan(made), tmp_path / "o")] == ["done", "done"]
    changed = status(plan(recipe(TEXT % (4, 10))), tmp_path / "o")
    assert [stage.state for stage in changed] == ["done", "to do"] and "changed" in changed[1].reason
    (data / "d.jsonl").write_text((data / "d.jsonl").read_text() + "\n")
    assert {stage.reason for stage in status(plan(made), tmp_path / "o")} == {"the input changed"}
    (data / "d.jsonl").unlink()
    assert {stage.reason for stage in status(plan(made), tmp_path / "o")} == {"the input is gone"}


def test_rows_that_were_set_aside_are_tried_again(
    recipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bettersynth.ops._catalog import operator_class

    cls = operator_class("words_num_filter")
    plain = cls.score

    def failing(self: Any, batch: Any, ctx: Any) -> Any:
        if "0033" in batch.column("id").to_pylist():
            raise ConnectionError("busy")
        return plain(self, batch, ctx)

    text = "  - fix_unicode_mapper:\n  - words_num_filter: {min_num: 1}\n  - document_deduplicator:\n"
    with monkeypatch.context() as patch:
        patch.setattr(cls, "score", failing)
        first = process(recipe(text), out=tmp_path / "o", workers=1)
    assert first.facts["quarantined"] == 3 and "0033" not in ids(tmp_path / "o")
    assert process(recipe(text), out=tmp_path / "o", workers=1).facts["quarantined"] == 3  # not by itself
    again = process(recipe(text), out=tmp_path / "o", workers=1, retry=True)
    assert again.facts["quarantined"] == 2 and "0033" in ids(tmp_path / "o")
    left = [row for _, row in read_rows(tmp_path / "o" / "quarantine.jsonl") if isinstance(row, dict)]
    assert {json.dumps(row["operator"]) for row in left} == {'"read"'}


def test_progress_tells_rows_of_every_operator_and_the_time_left(recipe: Callable[..., Any], tmp_path: Path) -> None:
    events: list[Any] = []
    process(recipe(TEXT % (6, 30)), out=tmp_path / "o", workers=1, progress=events.append)
    assert [event.shards_done for event in events] == [0, 1, 0, 1]
    first, last = events[1], events[-1]
    assert first.rows_per_s > 0 and first.left_s == 0 and first.quarantined == 2
    read, mapper = first.steps
    assert (read.operator, read.rows_in, read.kept, read.quarantined) == ("read", 60, 58, 2)
    assert mapper.kept == 58 and last.dropped == sum(step.dropped for step in last.steps) > 0
    assert [step.operator for step in last.steps] == ["words_num_filter", "text_length_filter"]
    assert last.steps[0].kept == last.steps[1].rows_in


@pytest.mark.parametrize("how", ["min_score: 0.1", "adaptive_threshold: {method: otsu}", "mark_only: true"])
def test_one_text_under_several_pictures_gets_several_scores(
    recipe: Callable[..., Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    pictures = sorted((data / "images").iterdir())
    rows = [
        {"id": f"{number:04d}", "images": [f"images/{pictures[number % 12].name}"], "text": text}
        for number, text in enumerate(["<image>\nall rights reserved"] * 30 + ["<image>\na red dog"] * 30)
    ]
    (data / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = f"  - image_text_similarity_filter: {{hf_clip: fake, {how}}}\n"
    process(recipe(text), out=tmp_path / "a", workers=1)
    # Another recipe over the same pool, whose rows are a part of it, asks after the first and must hear the same.
    process(recipe("  - words_num_filter: {min_num: 3}\n" + text), out=tmp_path / "b", workers=1)
    monkeypatch.setattr("bettersynth.engine.results.Results._get", lambda *_: (None, {}))
    process(recipe(text), out=tmp_path / "c", workers=1)
    assert scores(tmp_path / "a") == scores(tmp_path / "c")
    both = scores(tmp_path / "a"), scores(tmp_path / "b")
    assert all(both[0][row] == both[1][row] for row in both[0].keys() & both[1].keys())
    by_pair = {(int(row) // 30, int(row) % 12): score for row, score in scores(tmp_path / "a").items()}
    assert len(by_pair) > 10 and len(set(by_pair.values())) == len(by_pair)


def scores(folder: Path) -> dict[str, float]:
    stats = [row for _, row in read_rows(folder / "processed_data_stats.jsonl") if isinstance(row, dict)]
    values = [row["__dj__stats__"]["image_text_similarity"][0] for row in stats]
    return dict(zip(ids(folder), values, strict=True))
