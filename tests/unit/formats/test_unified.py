"""Records of unified generation: what is read, and that every mistake is named with its record, field and fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bettersynth.core.errors import DataError
from bettersynth.core.sample import Conversation
from bettersynth.formats.unified import BadRecord, parse_record
from bettersynth.formats.unified_files import read_unified
from bettersynth.formats.unified_schema import record_schema, sample_data_format, sample_records

ROOT = Path(__file__).resolve().parents[3]


def test_every_documented_record_is_read() -> None:
    kinds = sample_records()
    assert set(kinds) == {"text_to_image", "conversation", "captioning", "editing", "interleaved", "text_only"}
    for record in kinds.values():
        found = parse_record(record)
        assert isinstance(found, Conversation) and found.id == record["id"]
        assert any(segment.is_target for segment in found.segments)
    story = parse_record(kinds["interleaved"])
    assert [(s.kind, s.is_target) for s in story.segments] == [("text", False), *[("text", True), ("image", True)] * 2]


def test_generated_files_are_current() -> None:
    from bettersynth.formats.unified_schema import schema_text

    assert (ROOT / "docs" / "sample_data_format.json").read_text() == sample_data_format(), "run: make docs"
    assert (ROOT / "docs" / "unified_record.schema.json").read_text() == schema_text(), "run: make docs"


def test_the_schema_agrees_with_the_reader() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(record_schema())
    bad: list[Any] = [{"text_prompt": "x"}, {"conversations": []}, {"conversations": [{"role": "user"}]}, []]
    for record in [*sample_records().values(), *bad]:
        assert validator.is_valid(record) == isinstance(parse_record(record), Conversation), record


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"text_prompt": " ", "image_path": 3}, ["text_prompt: is empty", "image_path: must be a string, got int"]),
        ({"text_prompt": "a", "image_paht": "b.png"}, ["image_paht: unknown key (did you mean 'image_path'?)"]),
        ({}, ["text_prompt: is missing", "image_path: is missing"]),
        ({"conversations": "x"}, ["conversations: must be a list"]),
        ({"conversations": [], "text_prompt": "a"}, ["one form only", "at least one turn"]),
        ({"conversations": [5]}, ["conversations[0]: not a JSON object but a int"]),
        (
            {"conversations": [{"role": "bot", "type": "image", "content": "x"}]},
            [
                "conversations[0].role: cannot be bot (one of: system, user, assistant)",
                "conversations[0].image_path: is missing (give the path of the picture)",
                "conversations[0].content: does not belong to a turn of type image",
            ],
        ),
        (
            {"conversations": [{"role": "user", "type": "text", "content": "hi"}]},
            ["nothing in this record can be learnt (add a turn with role assistant"],
        ),
        (
            {"conversations": [{"role": "assistant", "type": "text", "content": "x", "imagepath": "y"}]},
            ["conversations[0].imagepath: unknown key (did you mean 'image_path'?)"],
        ),
        ({"conversations": [{"from": "robot", "value": "x"}]}, ["conversations[0].from: cannot be robot"]),
        (
            {"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]},
            ["image: 0 pictures for 1 image tokens"],
        ),
        ([1], ["not a JSON object but a list"]),
    ],
)
def test_mistakes_are_named_all_at_once(record: Any, wanted: list[str]) -> None:
    found = parse_record(record)
    assert isinstance(found, BadRecord)
    for text in wanted:
        assert text in found.reason


def test_llava_records_are_read_with_pictures_in_their_places() -> None:
    turns = [{"from": "human", "value": "first <image> second <image>"}, {"from": "gpt", "value": "yes"}]
    found = parse_record({"id": 7, "image": ["a.png", "b.png"], "conversations": turns})
    assert [(s.kind, s.text or s.image.path) for s in found.segments] == [
        *[("text", "first"), ("image", "a.png"), ("text", "second"), ("image", "b.png"), ("text", "yes")]
    ]
    assert [s.is_target for s in found.segments] == [False] * 4 + [True]


def test_files_keep_their_rows_whatever_is_wrong_with_one(tmp_path: Path) -> None:
    lines = [json.dumps(sample_records()["text_only"]), "{broken", "[]", json.dumps({"text_prompt": "x"})]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    found = read_unified(tmp_path / "d.jsonl")
    assert [isinstance(item, BadRecord) for item in found] == [False, True, True, True]
    assert [item.row for item in found[1:]] == [1, 2, 3]
    assert [item.reason.partition(":")[0] for item in found[1:3] if isinstance(item, BadRecord)] == ["line 2", "line 3"]
    (tmp_path / "d.json").write_text(json.dumps([sample_records()["text_only"], {"text_prompt": "x"}]))
    assert [isinstance(item, BadRecord) for item in read_unified(tmp_path / "d.json")] == [False, True]


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data file not found"):
        read_unified(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="a folder"):
        read_unified(tmp_path)
    (tmp_path / "d.csv").write_text("text_prompt,image_path")
    with pytest.raises(DataError, match=r"not read from such a file[^$]*\.parquet, \.tar"):
        read_unified(tmp_path / "d.csv")
    (tmp_path / "d.json").write_text('{"text_prompt": "x"}')
    with pytest.raises(DataError, match="not a JSON list"):
        read_unified(tmp_path / "d.json")
    (tmp_path / "e.json").write_text('{"text_prompt": "x"}\n{}')
    with pytest.raises(DataError, match=r"\.jsonl"):
        read_unified(tmp_path / "e.json")
