"""What the trace tells of one sample, and of the difference between two data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bettersynth.engine.diff import diff
from bettersynth.engine.local import process
from bettersynth.engine.passport import passport

TEXT = (
    "  - punctuation_normalization_mapper:\n  - words_num_filter: {min_num: 3}\n"
    "  - image_text_similarity_filter: {hf_clip: fake, adaptive_threshold: {method: quantile, low: 0.2}}\n"
    "  - recaption_mapper: {hf_img2seq: fake, when: {image_text_similarity: {below: 0.4}}}\n"
    "  - image_captioning_mapper: {hf_img2seq: fake}\n  - text_length_filter: {min_len: 20}\n"
)
NAMES = [line.split("- ")[1].split(":")[0] for line in TEXT.splitlines()]


def test_every_operator_stands_in_a_kept_samples_passport(recipe: Callable[..., Any], tmp_path: Path) -> None:
    process(recipe(TEXT), out=tmp_path / "o", workers=1)
    kept = next(e for e in _kept(tmp_path / "o") if ":" not in e["key"].partition(":")[2])
    story = [event for event in passport(tmp_path / "o", kept["id"]) if event["key"] == kept["key"]]
    assert [event["operator"] for event in story] == [*NAMES, ""]
    actions = dict(zip(NAMES, (event["action"] for event in story), strict=False))
    assert actions["punctuation_normalization_mapper"] == "unchanged" and actions["words_num_filter"] == "passed"
    words = story[1]
    assert words["scores"] == {"num_words": kept["scores"]["num_words"]} and words["limits"]["min_num"] == 3
    fitted = story[2]["limits"]["min_score"]
    assert isinstance(fitted, float) and story[2]["scores"]["image_text_similarity"][0] >= fitted
    assert story[-1]["action"] == "kept" and story[1]["image"].startswith("images/")


def test_marked_rows_and_repeated_operators_are_told_apart(recipe: Callable[..., Any], tmp_path: Path) -> None:
    text = "  - text_length_filter: {min_len: 60, mark_only: true}\n  - words_num_filter: {min_num: 1}\n"
    process(recipe(text + "  - words_num_filter: {min_num: 2}\n"), out=tmp_path / "o", workers=1)
    kept = {event["scores"]["text_len_failed"]: event["id"] for event in _kept(tmp_path / "o")}
    for failed, action in ((1, "marked"), (0, "passed")):
        story = passport(tmp_path / "o", kept[failed])
        assert [event["action"] for event in story] == [action, "passed", "passed", "kept"]
    assert [event["label"] for event in story] == ["text_length_filter", "words_num_filter", "words_num_filter #2", ""]


def _kept(folder: Path) -> list[dict[str, Any]]:
    from bettersynth.engine import trace

    return list(trace.load(folder, action="kept"))


def test_a_dropped_sample_stops_where_it_was_dropped_and_a_child_begins_where_it_was_made(
    recipe: Callable[..., Any], tmp_path: Path
) -> None:
    from bettersynth.engine import trace

    process(recipe(TEXT), out=tmp_path / "o", workers=1)
    dropped = next(iter(trace.load(tmp_path / "o", action="dropped", operator="image_text_similarity_filter")))
    story = passport(tmp_path / "o", dropped["id"])
    assert [event["operator"] for event in story] == NAMES[:3] and story[-1]["action"] == "dropped"
    assert story[-1]["reason"] == "image_text_similarity below min_score"
    assert story[-1]["scores"]["image_text_similarity"][0] < story[-1]["limits"]["min_score"]
    child = next(iter(trace.load(tmp_path / "o", action="made")))
    mine = [event for event in passport(tmp_path / "o", child["id"]) if event["key"] == child["key"]]
    assert mine[0]["action"] == "made" and mine[0]["operator"] == "image_captioning_mapper"
    assert mine[1]["operator"] == "text_length_filter"
    assert passport(tmp_path / "o", "nobody") == []


def test_differences_are_told_with_their_reasons(recipe: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    a = "  - words_num_filter: {min_num: 7}\n"
    b = (
        "  - words_num_filter: {min_num: 5}\n  - text_length_filter: {max_len: 60}\n"
        "  - replace_content_mapper: {pattern: dog, repl: cat}\n"
    )
    left = process(recipe(a), out=tmp_path / "a", workers=1)
    right = process(recipe(b), out=tmp_path / "b", workers=1)
    found = diff(tmp_path / "a", tmp_path / "b")
    assert (found.rows_a, found.rows_b) == (left.facts["rows_out"], right.facts["rows_out"])
    groups = {(group.kind, group.reason): group.samples for group in found.groups}
    assert groups["only in A", "text_length_filter: text_len above max_len"] > 0
    assert groups["only in B", "words_num_filter: num_words below min_num"] > 0
    assert groups["changed", "B: replace_content_mapper"] > 0 and len(groups) == 3
    assert (
        found.same + sum(groups.values())
        == found.rows_a + groups["only in B", "words_num_filter: num_words below min_num"]
    )
    assert diff(tmp_path / "a", tmp_path / "a").groups == ()
    raw = diff(data / "d.jsonl", tmp_path / "a", examples=1)
    assert any(group.reason.startswith("read: image not found") for group in raw.groups)
    assert all(len(group.examples) == 1 for group in raw.groups)


def test_repeated_samples_are_counted_as_copies(recipe: Callable[..., Any], tmp_path: Path) -> None:
    process(recipe("  - fix_unicode_mapper:\n"), out=tmp_path / "a", workers=1)
    process(recipe("  - repeat_to_budget_selector: {num_samples: 80}\n"), out=tmp_path / "b", workers=1)
    found = diff(tmp_path / "a", tmp_path / "b")
    assert [(group.kind, group.samples, group.reason) for group in found.groups] == [
        ("more copies in B", 22, "B: repeat_to_budget_selector")
    ]
