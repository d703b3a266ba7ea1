"""A small evaluation folder in the benchmarks' formats, and a model that answers from a table."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from bettersynth.infer.protocols import ChatRequest, ChatResponse, Decoding

ASK = "Answer the question using a single word or phrase."


class ScriptedChat:
    """A ChatModel whose answers come from a function of the request; remembers what it was asked."""

    def __init__(self, answer: Callable[[ChatRequest], str], digest: str = "c" * 32) -> None:
        self.digest = digest
        self.asked: list[str] = []
        self._answer = answer

    def generate(self, requests: Sequence[ChatRequest], decoding: Decoding) -> list[ChatResponse]:
        self.asked += [request.key for request in requests]
        return [ChatResponse(request.key, self._answer(request)) for request in requests]


def png(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(stream, "png")
    return stream.getvalue()


def write_textvqa(folder: Path, rows: list[dict], annotations: list[dict] | None) -> None:
    images = folder / "textvqa" / "train_images"
    images.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        (images / row["image"]).write_bytes(png((number, 0, 0)))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl").write_text(lines, encoding="utf-8")
    if annotations is not None:
        document = json.dumps({"data": annotations})
        (folder / "textvqa" / "TextVQA_0.5.1_val.json").write_text(document, encoding="utf-8")


def write_mmbench(folder: Path, questions: list[dict], name: str = "mmbench_dev_20230712.tsv") -> None:
    """One row per rotation; ``questions`` hold index, question, options, answer and perhaps hint and categories."""
    (folder / "mmbench").mkdir(parents=True, exist_ok=True)
    columns = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category"]
    with (folder / "mmbench" / name).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*columns, "comment", "split"], delimiter="\t", restval="")
        writer.writeheader()
        for number, question in enumerate(questions):
            texts = question["options"]
            right = "ABCD".index(question["answer"])
            for turn in range(question.get("rotations", len(texts))):
                turned = texts[turn:] + texts[:turn]
                row = dict(zip("ABCD", turned, strict=False), index=turn * 1_000_000 + question["index"])
                row |= {"question": question["question"], "hint": question.get("hint", ""), "split": "dev"}
                row |= {"answer": "ABCD"[(right - turn) % len(texts)], "category": question.get("category", "ocr")}
                row |= {"l2-category": "FP-S", "image": base64.b64encode(png((0, number, 0))).decode()}
                writer.writerow(row)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three TextVQA questions (two on one picture) and two MMBench questions."""
    folder = tmp_path / "eval"
    hint = "Reference OCR token: STOP, 7"
    rows = [
        {"question_id": "p0", "image": "p0.png", "text": f"What does the sign say?\n{hint}\n{ASK}"},
        {"question_id": "p0", "image": "p0.png", "text": f"Which number?\n{hint}\n{ASK}"},
        {"question_id": "p1", "image": "p1.png", "text": f"What does the sign say?\n{hint}\n{ASK}"},
    ]
    annotations = [
        {"image_id": "p0", "question": "What does the sign say?", "question_id": 1, "answers": ["stop"] * 10},
        {"image_id": "p0", "question": "Which number?", "question_id": 2, "answers": ["7"] * 3 + ["seven"] + ["1"] * 6},
        {"image_id": "p1", "question": "what does the SIGN say?", "question_id": 3, "answers": ["go"] * 10},
    ]
    write_textvqa(folder, rows, annotations)
    write_mmbench(
        folder,
        [
            {"index": 1, "question": "Which animal?", "options": ["cat", "dog", "cow"], "answer": "B"},
            {"index": 2, "question": "Is it on?", "hint": "At night.", "options": ["yes", "None"], "answer": "A"},
        ],
    )
    return folder
