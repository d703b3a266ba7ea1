"""Evaluation files in the exact formats of TextVQA 0.5.1 and of the MMBench development tsv.

Questions are drawn from `EVAL_VOCAB` scenes with seeds that neither seed pool nor instruction data use.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.demo.world.language import (
    OPTION_LETTERS,
    Question,
    ask,
    with_options,
)
from bettersynth.demo.world.render import render
from bettersynth.demo.world.scene import Scene, sample_scene
from bettersynth.demo.world.vocab import COLOURS, EVAL_VOCAB, LETTERS, NUMBER_WORDS

TEXTVQA_MIX: dict[str, float] = {"sign": 0.70, "number": 0.18, "colour": 0.12}
"""Question kinds of the TextVQA-style set; most ask for a sign's word, as TextVQA asks for text."""

MMBENCH_KINDS: dict[str, tuple[str, str]] = {
    "scene": ("image_scene", "coarse_perception"),
    "sign": ("ocr", "finegrained_perception (instance-level)"),
    "number": ("ocr", "finegrained_perception (instance-level)"),
    "colour": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "kind": ("object_localization", "finegrained_perception (instance-level)"),
    "position": ("object_localization", "finegrained_perception (instance-level)"),
    "count": ("object_counting", "finegrained_perception (cross-instance)"),
    "relation": ("spatial_relationship", "finegrained_perception (cross-instance)"),
}
"""(category, l2-category) of each question kind, in MMBench's words; the kinds are equally frequent."""

MMBENCH_COLUMNS = (
    "index",
    "question",
    "hint",
    "A",
    "B",
    "C",
    "D",
    "answer",
    "category",
    "image",
    "source",
    "l2-category",
    "comment",
    "split",
)
ROTATION_STEP = 1_000_000
NUM_ANNOTATORS = 10

TEXTVQA_OCR_FILE = "llava_textvqa_val_v051_ocr.jsonl"
TEXTVQA_PLAIN_FILE = "llava_textvqa_val_v051.jsonl"
TEXTVQA_ANNOTATION_FILE = "TextVQA_0.5.1_val.json"
TEXTVQA_IMAGES = "train_images"
MMBENCH_FILE = "mmbench_dev_20230712.tsv"


@dataclass(frozen=True, slots=True)
class Item:
    """One evaluation question on one picture."""

    scene: Scene
    question: Question


# --- TextVQA ----------------------------------------------------------------------------------------------


def draw_textvqa(count: int, rng: random.Random) -> list[Item]:
    """`count` open questions about text (and some about what carries it), by the shares of `TEXTVQA_MIX`."""
    kinds = spread(TEXTVQA_MIX, count)
    rng.shuffle(kinds)
    return [_draw_item(kind, rng) for kind in kinds]


def _draw_item(kind: str, rng: random.Random) -> Item:
    while True:
        scene = sample_scene(rng, EVAL_VOCAB, min_signs=1 if kind == "sign" else 0)
        question = ask(scene, kind, rng)
        if question is not None:
            return Item(scene, question)


def spread(mix: dict[str, float], count: int) -> list[str]:
    """`count` names in the shares of `mix`, exact up to rounding (largest remainder)."""
    total = sum(mix.values())
    exact = {name: count * share / total for name, share in mix.items()}
    numbers = {name: int(value) for name, value in exact.items()}
    for name in sorted(mix, key=lambda n: numbers[n] - exact[n])[: count - sum(numbers.values())]:
        numbers[name] += 1
    return [name for name, number in numbers.items() for _ in range(number)]


def write_textvqa(folder: Path, items: list[Item], rng: random.Random) -> None:
    """Write pictures, the question files with and without OCR hints, and the annotation file.

    Args:
        folder: becomes `llava_textvqa_val_v051_ocr.jsonl`, `llava_textvqa_val_v051.jsonl`,
            `TextVQA_0.5.1_val.json` and `train_images/`.
        items: the questions; each has a picture of its own.
        rng: source of image ids, annotators' slips and OCR errors.
    """
    images = folder / TEXTVQA_IMAGES
    images.mkdir(parents=True, exist_ok=True)
    with_ocr, plain, data = [], [], []
    for number, item in enumerate(items):
        image_id = f"{rng.getrandbits(64):016x}"
        render(item.scene).save(images / f"{image_id}.jpg", quality=95)
        prompt, tokens = item.question.prompt(), ocr_tokens(item.scene, rng)
        base = {"question_id": image_id, "image": f"{image_id}.jpg"}
        with_ocr.append({**base, "text": with_ocr_hint(prompt, tokens), "category": "default"})
        plain.append({**base, "text": prompt, "category": "default"})
        data.append(_annotation(number, image_id, item, rng))
    _write_jsonl(folder / TEXTVQA_OCR_FILE, with_ocr)
    _write_jsonl(folder / TEXTVQA_PLAIN_FILE, plain)
    text = json.dumps({"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": data})
    (folder / TEXTVQA_ANNOTATION_FILE).write_text(text + "\n", encoding="utf-8")


def _annotation(number: int, image_id: str, item: Item, rng: random.Random) -> dict[str, Any]:
    return {
        "question": item.question.text,
        "question_type": item.question.kind,  # beyond TextVQA's keys: scores by kind
        "image_id": image_id,
        "image_classes": sorted({thing.kind.capitalize() for thing in item.scene.things}),
        "flickr_original_url": "",
        "flickr_300k_url": "",
        "image_width": 96,
        "image_height": 96,
        "answers": ten_answers(item.question, rng),
        "question_tokens": item.question.text.lower().rstrip("?").split(),
        "question_id": number,
        "set_name": "val",
    }


def ten_answers(question: Question, rng: random.Random) -> list[str]:
    """Ten annotators: at least seven give the truth (in lower case for words), the others slip or decline."""
    truth = question.answer.lower()
    answers = [truth] * NUM_ANNOTATORS
    for place in rng.sample(range(NUM_ANNOTATORS), rng.choices((0, 1, 2, 3), (0.4, 0.3, 0.2, 0.1))[0]):
        answers[place] = rng.choice((_slip(question, rng), "unanswerable", truth + "s"))
    return answers


def _slip(question: Question, rng: random.Random) -> str:
    if question.kind == "colour":
        return rng.choice([colour for colour in COLOURS if colour != question.answer])
    if question.kind == "number":
        return question.answer[:1]
    index = rng.randrange(len(question.answer))
    letter = rng.choice([letter for letter in LETTERS if letter != question.answer[index]])
    return (question.answer[:index] + letter + question.answer[index + 1 :]).lower()


def with_ocr_hint(prompt: str, tokens: list[str]) -> str:
    """The prompt with what an OCR program found, on a line of its own before the last one."""
    question, hint = prompt.rsplit("\n", 1)
    return f"{question}\nReference OCR token: {', '.join(tokens)}\n{hint}"


def ocr_tokens(scene: Scene, rng: random.Random) -> list[str]:
    """What a mediocre OCR program would find: words missed (15 %), letters misread (25 %), odd extra tokens (15 %)."""
    tokens = []
    texts = [sign.word for sign in scene.signs]
    texts += [str(thing.number) for thing in scene.things if thing.number is not None]
    for text in texts:
        roll = rng.random()
        if roll < 0.15:
            continue
        if roll < 0.40:
            index = rng.randrange(len(text))
            pool = LETTERS if text.isalpha() else "0123456789"
            text = text[:index] + rng.choice(pool) + text[index + 1 :]
        tokens.append(text)
    if rng.random() < 0.15:
        tokens.append("".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 3))))
    return tokens


# --- MMBench ----------------------------------------------------------------------------------------------


def draw_mmbench(count: int, rng: random.Random) -> list[Item]:
    """`count` four-option questions; kinds equally frequent, right letters exactly balanced."""
    kinds = spread(dict.fromkeys(MMBENCH_KINDS, 1.0), count)
    letters = [OPTION_LETTERS[i % len(OPTION_LETTERS)] for i in range(count)]
    rng.shuffle(kinds)
    rng.shuffle(letters)
    items = []
    for kind, letter in zip(kinds, letters, strict=True):
        item = _draw_item(kind, rng) if kind not in ("count", "relation") else _draw_balanced(kind, rng)
        items.append(Item(item.scene, with_options(item.question, item.scene, EVAL_VOCAB, rng, letter)))
    return items


def _draw_balanced(kind: str, rng: random.Random) -> Item:
    """A counting or relation question whose true answer is drawn uniformly first."""
    wanted = rng.choice(NUMBER_WORDS[1:] if kind == "count" else ("left", "right", "above", "below"))
    while True:
        item = _draw_item(kind, rng)
        if item.question.answer == wanted:
            return item


def write_mmbench(path: Path, items: list[Item]) -> None:
    """Write the tsv: for every question one row per rotation of its options, index k, k + 10^6, ...

    The picture is repeated in every row as base64 of a JPEG, as in the original.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [_base64_jpeg(item.scene) for item in items]
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, MMBENCH_COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for turn in range(len(OPTION_LETTERS)):
            for index, item in enumerate(items):
                options = item.question.options[turn:] + item.question.options[:turn]
                category, level2 = MMBENCH_KINDS[item.question.kind]
                row = dict.fromkeys(MMBENCH_COLUMNS, "") | dict(zip(OPTION_LETTERS, options, strict=True))
                row |= {
                    "index": str(index + turn * ROTATION_STEP),
                    "question": item.question.text,
                    "answer": OPTION_LETTERS[options.index(item.question.answer)],
                    "category": category,
                    "image": pictures[index],
                    "source": "demo_world",
                    "l2-category": level2,
                    "split": "dev",
                }
                writer.writerow(row)


def _base64_jpeg(scene: Scene) -> str:
    buffer = io.BytesIO()
    render(scene).save(buffer, "JPEG", quality=95)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


# --- chance -----------------------------------------------------------------------------------------------


def chance_levels(textvqa: list[Item], mmbench: list[Item]) -> dict[str, Any]:
    """What a model that does not look at the picture can get, with the method in words.

    TextVQA: per question kind the most frequent answer of the evaluation set itself (an upper bound).
    MMBench: one letter out of four; always the same letter; four independent guesses for circular scoring.
    """
    by_kind: dict[str, Counter[str]] = {}
    for item in textvqa:
        by_kind.setdefault(item.question.kind, Counter())[item.question.answer] += 1
    majority = sum(counter.most_common(1)[0][1] for counter in by_kind.values())
    letters = Counter(item.question.letter for item in mmbench)
    return {
        "textvqa": {
            "majority": round(majority / max(1, len(textvqa)), 4),
            "by_kind": {k: round(c.most_common(1)[0][1] / c.total(), 4) for k, c in sorted(by_kind.items())},
            "method": "most frequent answer of each question kind, counted on the evaluation set itself",
        },
        "mmbench": {
            "uniform": 0.25,
            "majority_letter": round(letters.most_common(1)[0][1] / max(1, len(mmbench)), 4),
            "circular_uniform": 0.25**4,
            "circular_constant_letter": 0.0,
            "method": "one of four letters; circular: the same question right under all four rotations by guessing",
        },
    }


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
