"""LLaVA files and the two conversions, with the locked conversion's limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bettersynth.core.errors import DataError
from bettersynth.formats import llava

RECORD: dict[str, Any] = {
    "id": "7",
    "image": "images/7.jpg",
    "conversations": [
        {"from": "human", "value": "Describe it.\n<image>"},
        {"from": "gpt", "value": "a dog"},
        {"from": "human", "value": "More?"},
        {"from": "gpt", "value": "no"},
    ],
}


def row(row_id: object, text: str, images: list[str] | None = None) -> dict[str, Any]:
    return {"id": row_id, "text": text, "images": ["images/7.jpg"] if images is None else images}


def test_conversation_round_trip_keeps_everything() -> None:
    record = {**RECORD, "id": 7, "source": "x", "extra": {"a": 1}}
    record.pop("source")
    conversation = llava.to_conversation(record)
    assert [s.kind for s in conversation.segments] == ["text", "image", "text", "text", "text"]
    assert [s.is_target for s in conversation.segments] == [False, False, True, False, True]
    assert llava.from_conversation(conversation) == record


def test_text_only_record_with_an_image_round_trips_and_surplus_tokens_are_refused() -> None:
    record = {**RECORD, "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": ""}]}
    assert llava.from_conversation(llava.to_conversation(record)) == record
    with pytest.raises(DataError, match="more image tokens"):
        llava.to_conversation({**RECORD, "conversations": [{"from": "human", "value": "<image><image>"}]})


def test_questions_are_restored_by_id_and_one_round_is_kept() -> None:
    rows = [
        row("7", "<image>\n better words <|__dj__eoc|>"),
        row(7, "<__dj__image> again <|__dj__eoc|>", ["new/7.jpg"]),
    ]
    found = llava.dj_to_llava(rows, questions={"7": RECORD})
    assert [r["id"] for r in found] == ["7", "7"]  # repeated ids are allowed, the original's type comes back
    assert found[0]["conversations"] == [RECORD["conversations"][0], {"from": "gpt", "value": "better words"}]
    assert found[1]["image"] == "new/7.jpg" and found[1]["conversations"][1]["value"] == "again"


def test_unknown_ids_stop_the_conversion_and_are_listed() -> None:
    rows = [row("7", "a"), row("8", "b"), row("9", "c"), row("8", "d")]
    with pytest.raises(DataError) as caught:
        llava.dj_to_llava(rows, questions={"7": RECORD})
    assert caught.value.got == "8, 9" and "2 ids" in caught.value.message


def test_two_different_pictures_and_missing_originals_are_refused() -> None:
    with pytest.raises(DataError, match="one image"):
        llava.dj_to_llava([row("7", "a", ["a.jpg", "b.jpg"])], questions={"7": RECORD})
    with pytest.raises(DataError, match="original LLaVA file"):
        llava.dj_to_llava([row("7", "a")])


def test_there_and_back_without_restoring() -> None:
    (dj,) = llava.llava_to_dj([RECORD])
    assert dj["text"].startswith("[[human]]: Describe it.\n<image>\n[[gpt]]: a dog\n[[human]]")
    (back,) = llava.dj_to_llava([dj], restore_questions=False)
    assert back == {"id": "7", "image": "images/7.jpg", "conversations": RECORD["conversations"]}


def test_only_captions_there_and_questions_restored_back() -> None:
    single = {**RECORD, "conversations": RECORD["conversations"][:2]}
    (dj,) = llava.llava_to_dj([single], only_keep_caption=True)
    assert dj == {"id": "7", "text": "<image>\na dog <|__dj__eoc|>", "images": ["images/7.jpg"]}
    assert llava.dj_to_llava([dj], questions={"7": single}) == [
        {"id": "7", "conversations": single["conversations"], "image": "images/7.jpg"}
    ]


def test_turns_beside_captions_on_the_open_track() -> None:
    rows = [row("7", "<image>\nx <|__dj__eoc|>"), row("7", "[[human]]: <image>\nQ?\n[[gpt]]: A <|__dj__eoc|>")]
    found = llava.dj_to_llava(rows, questions={"7": RECORD}, keep_turns=True)
    assert found[0]["conversations"][0] == RECORD["conversations"][0]
    assert found[1]["conversations"] == [{"from": "human", "value": "<image>\nQ?"}, {"from": "gpt", "value": "A"}]


@pytest.mark.parametrize("text", ["just words", "[[human]]: only a question", "words [[human]]: a [[gpt]]: b"])
def test_texts_without_paired_turns_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="no paired"):
        llava.dj_to_llava([row("1", text)], restore_questions=False)


def test_odd_turns_and_hidden_image_tokens_are_refused() -> None:
    with pytest.raises(DataError, match="odd number"):
        list(llava.llava_to_dj([{**RECORD, "conversations": RECORD["conversations"][:3]}]))
    middle = [{"from": "human", "value": "a <image> b"}, {"from": "gpt", "value": "c"}]
    with pytest.raises(DataError, match="start or end"):
        list(llava.llava_to_dj([{**RECORD, "conversations": middle}]))


def test_files_set_bad_records_aside(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps([RECORD, {"id": 1}, 5, {**RECORD, "image": 3}, {"conversations": [{"from": "a"}]}]))
    reading = llava.read_llava(path)
    assert len(reading.records) == 1 and [bad.row for bad in reading.rejected] == [1, 2, 3, 4]
    llava.write_llava(path, reading.records)
    assert llava.questions_by_id(path) == {"7": RECORD}
    path.write_text("{}")
    with pytest.raises(DataError, match="not a JSON list"):
        llava.read_llava(path)
    path.write_text("[")
    with pytest.raises(DataError, match="not valid JSON"):
        llava.read_llava(path)
