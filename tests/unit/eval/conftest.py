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


def write_pope(folder: Path) -> None:
    """Two kinds of questions in the official layout, five questions on two pictures."""
    pictures = folder / "pope" / "val2014"
    pictures.mkdir(parents=True)
    for number in range(2):
        (pictures / f"COCO_{number}.jpg").write_bytes(png((0, 0, number)))
    rows = {"random": [("dog", 0, "yes"), ("cat", 0, "no"), ("bus", 1, "yes")], "popular": [("car", 1, "no")]}
    rows["popular"].append(("hat", 0, "no"))
    for kind, found in rows.items():
        lines = [
            {"question_id": n, "image": f"COCO_{at}.jpg", "text": f"Is there a {what} in the image?", "label": label}
            for n, (what, at, label) in enumerate(found, 1)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "pope" / f"coco_pope_{kind}.json").write_text(text, encoding="utf-8")


def write_scienceqa(folder: Path) -> None:
    """Three problems of the test split and one of val in the official layout; the first has a picture and a hint."""
    root = folder / "scienceqa"
    (root / "images" / "test" / "4").mkdir(parents=True)
    (root / "images" / "test" / "4" / "image.png").write_bytes(png((9, 9, 9)))
    common = {"lecture": "never shown", "solution": "never shown", "split": "test", "image": None, "hint": ""}
    problems = {
        "4": {
            "question": "Which is hot?",
            "choices": ["ice", "sun", "rain"],
            "answer": 1,
            "subject": "natural science",
        },
        "7": {"question": "Which town?", "choices": ["Rome", "Oslo"], "answer": 0, "subject": "social science"},
        "9": {"question": "Which word?", "choices": ["a", "b", "c", "d"], "answer": 3, "subject": "language science"},
        "2": {"question": "Which?", "choices": ["x", "y"], "answer": 1, "subject": "natural science", "split": "val"},
    }
    problems = {key: common | problem for key, problem in problems.items()}
    problems["4"] |= {"image": "image.png", "hint": "Think of the sky.", "grade": "grade3", "topic": "physics"}
    problems["7"] |= {"hint": "A map.", "grade": "grade8", "topic": "geography"}
    problems["9"] |= {"grade": "grade10", "topic": "writing"}
    (root / "problems.json").write_text(json.dumps(problems), encoding="utf-8")
    splits = {"train": [], "val": ["2"], "test": ["4", "7", "9"]}
    (root / "pid_splits.json").write_text(json.dumps(splits), encoding="utf-8")


def write_gqa(folder: Path) -> None:
    """Three balanced questions and one that is not, on two pictures, with the choices file."""
    root = folder / "gqa"
    (root / "images").mkdir(parents=True)
    for number in range(2):
        (root / "images" / f"n{number}.jpg").write_bytes(png((number, 7, 7)))

    def question(text: str, answer: str, image: int, structural: str, **more: object) -> dict[str, object]:
        types = {"structural": structural, "semantic": "attr", "detailed": structural + "Attr"}
        steps = [{"operation": "select", "argument": "bag (1)"}, {"operation": "query", "argument": "name"}]
        fields = {"isBalanced": True, "groups": {"global": "colour", "local": None}, "entailed": [], "semantic": steps}
        return {"question": text, "answer": answer, "imageId": f"n{image}", "types": types} | fields | more

    questions = {
        "1": question("What colour is the bag?", "red", 0, "query", entailed=["1", "2", "3"]),
        "2": question("Is the bag red?", "yes", 0, "verify", groups={"global": None, "local": "x"}),
        "3": question("Is the bag blue?", "no", 0, "verify", isBalanced=False),
        "4": question("What colour is the car?", "blue", 1, "query"),
    }
    (root / "testdev_balanced_questions.json").write_text(json.dumps(questions), encoding="utf-8")
    colours = {"valid": ["red", "blue", "green"], "plausible": ["red", "blue"]}
    choices = {"1": colours, "2": {"valid": ["yes", "no"], "plausible": ["yes", "no"]}, "4": colours}
    (root / "testdev_choices.json").write_text(json.dumps(choices), encoding="utf-8")


def write_mmmu(folder: Path) -> None:
    """Two subjects in the official parquet layout: two questions with options, one open, one with two pictures."""
    import pyarrow as pa
    from pyarrow import parquet

    def row(key: str, question: str, options: str, answer: str, pictures: int, kind: str) -> dict[str, object]:
        images = {f"image_{n}": {"bytes": png((n, n, 1)), "path": f"{n}.png"} for n in range(1, pictures + 1)}
        images |= {f"image_{n}": None for n in range(pictures + 1, 8)}
        fields = {"id": key, "question": question, "options": options, "answer": answer, "question_type": kind}
        return fields | images | {"topic_difficulty": "Easy", "explanation": "?", "subfield": "x", "img_type": "['T']"}

    choose = "multiple-choice"
    files = {
        "Accounting": [
            row("validation_Accounting_1", "<image 1> What tax?", "['$6', \"Ann's $7\", '$8']", "B", 1, choose),
            row("validation_Accounting_2", "<image 1> or <image 2>?", "['first', 'second']", "A", 2, choose),
        ],
        "Art_Theory": [row("validation_Art_Theory_1", "Year of <image 1>?", "[]", "['1,600', '1600']", 1, "open")],
    }
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for subject, rows in files.items():
        (folder / "mmmu" / subject).mkdir(parents=True)
        names = list(rows[0])
        schema = pa.schema([(name, struct if name.startswith("image_") else pa.string()) for name in names])
        table = pa.Table.from_pylist(rows, schema=schema)
        parquet.write_table(table, folder / "mmmu" / subject / "validation-00000-of-00001.parquet")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few questions of every benchmark: three of TextVQA (two on one picture), two of MMBench, the others above."""
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
    for write in (write_pope, write_scienceqa, write_gqa, write_mmmu):
        write(folder)
    return folder
