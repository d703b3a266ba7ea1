"""Write a whole demo workspace: noisy seed pool, instruction data, evaluation and development sets, hidden labels.

Everything is a function of (sizes, seed): the same arguments give the same bytes. Each part has a seed of its own
(`derive_seed(seed, "demo-world", part)`), so that changing one size leaves the other parts as they are.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bettersynth.core.sample import DJ_EOC, DJ_IMAGE, LLAVA_IMAGE
from bettersynth.core.seed import generator
from bettersynth.demo.world.evalset import (
    MMBENCH_FILE,
    chance_levels,
    draw_mmbench,
    draw_textvqa,
    ocr_tokens,
    spread,
    with_ocr_hint,
    write_mmbench,
    write_textvqa,
)
from bettersynth.demo.world.language import OPTION_LETTERS, Question, ask, with_options
from bettersynth.demo.world.noise import POOL_MIX, Pair, make_pair, near_duplicate
from bettersynth.demo.world.render import render
from bettersynth.demo.world.scene import Scene, sample_scene
from bettersynth.demo.world.vocab import EVAL_VOCAB
from bettersynth.formats.llava import CAPTION_REQUESTS

POOL_DIR = "input/pretrain_stage_1_demo"
POOL_FILE = "mgm_pretrain_stage_1_demo.jsonl"
POOL_QUESTIONS_FILE = "stage_1.json"
INSTRUCT_DIR = "toolkit/training/data/finetuning_stage_1_demo"
INSTRUCT_FILE = "mgm_instruction_stage_1_demo.json"
EVAL_DIR = "toolkit/eval"
DEV_DIR = "toolkit/eval_dev"
HIDDEN_DIR = "hidden"

INSTRUCT_MIX: dict[str, float] = {
    "sign": 0.06,
    "number": 0.05,
    "colour": 0.17,
    "kind": 0.17,
    "position": 0.15,
    "count": 0.15,
    "relation": 0.15,
    "scene": 0.10,
}
"""Question kinds of the instruction data. Few read signs: stage 1's captions have to teach reading."""

CHOICE_SHARE = 0.6
"""Share of instruction questions asked as multiple choice and answered with the option's letter."""

OCR_SHARE = 0.5
"""Share of the other instruction questions that name OCR tokens, as the caption and text part of LLaVA's mix does."""


@dataclass(frozen=True, slots=True)
class WorldSizes:
    """How much to make: pool pairs, instruction records, questions of each benchmark, dev questions of each."""

    pool: int
    instruct: int
    textvqa: int
    mmbench: int
    dev_textvqa: int
    dev_mmbench: int


QUICK = WorldSizes(pool=240, instruct=120, textvqa=24, mmbench=24, dev_textvqa=12, dev_mmbench=12)
DEMO = WorldSizes(pool=4000, instruct=3000, textvqa=400, mmbench=400, dev_textvqa=200, dev_mmbench=200)


def build(root: Path, *, sizes: WorldSizes, seed: int) -> dict[str, Any]:
    """Write the workspace's data under `root` and return its facts.

    Args:
        root: workspace folder; the folders of the parts are made (and emptied first, if they exist).
        sizes: how much of each part.
        seed: everything follows from it.

    Returns:
        Sizes, paths, counts of every quality class and question kind, and the chance levels, as plain JSON
        values; the same dictionary is written to `hidden/world.json`.
    """
    for part in (POOL_DIR, INSTRUCT_DIR, EVAL_DIR, DEV_DIR, HIDDEN_DIR):
        shutil.rmtree(root / part, ignore_errors=True)
        (root / part).mkdir(parents=True)
    pool = _write_pool(root, sizes.pool, generator(seed, "demo-world", "pool"))
    instruct = _write_instruct(root / INSTRUCT_DIR, sizes.instruct, generator(seed, "demo-world", "instruct"))
    evaluation = _write_eval(root / EVAL_DIR, sizes.textvqa, sizes.mmbench, generator(seed, "demo-world", "eval"))
    dev = _write_eval(root / DEV_DIR, sizes.dev_textvqa, sizes.dev_mmbench, generator(seed, "demo-world", "dev"))
    facts = {
        "seed": seed,
        "sizes": asdict(sizes),
        "pool": pool,
        "instruct": instruct,
        "chance": evaluation,
        "chance_dev": dev,
    }
    _write_json(root / HIDDEN_DIR / "chance.json", {"eval": evaluation, "eval_dev": dev})
    _write_json(root / HIDDEN_DIR / "world.json", facts)
    return facts


# --- seed pool --------------------------------------------------------------------------------------------


def make_pool(count: int, rng: random.Random) -> list[Pair]:
    """`count` pairs with the exact shares of `POOL_MIX`, shuffled; duplicates copy clean pairs of the pool."""
    classes = spread(POOL_MIX, count)
    pairs = [make_pair(noise, EVAL_VOCAB, rng) for noise in classes if "duplicate" not in noise]
    clean = [pair for pair in pairs if pair.noise == "clean"]
    for noise in classes:
        if noise == "duplicate":
            source = rng.choice(clean)
            pairs.append(Pair(source.scene, source.text, noise, source))
        elif noise == "near_duplicate":
            pairs.append(near_duplicate(rng.choice(clean), rng))
    rng.shuffle(pairs)
    return pairs


def _write_pool(root: Path, count: int, rng: random.Random) -> dict[str, Any]:
    folder = root / POOL_DIR
    pairs = make_pool(count, rng)
    keys = {id(pair): f"{number:09d}" for number, pair in enumerate(pairs)}
    rows, questions, labels = [], [], []
    for number, pair in enumerate(pairs):
        key = keys[id(pair)]
        image = f"images/{number // 1000:05d}/{key}.jpg"
        _save_picture(pair.scene, folder / image)
        request = rng.choice(CAPTION_REQUESTS)
        human = f"{LLAVA_IMAGE}\n{request}" if rng.random() < 0.5 else f"{request}\n{LLAVA_IMAGE}"
        rows.append({"id": key, "images": [image], "text": f"{DJ_IMAGE}\n{pair.text} {DJ_EOC}"})
        questions.append({"id": key, "image": image, "conversations": _turns(human, pair.text)})
        labels.append({"id": key, "noise": pair.noise} | ({"copy_of": keys[id(pair.source)]} if pair.source else {}))
    _write_jsonl(folder / POOL_FILE, rows)
    _write_json(folder / POOL_QUESTIONS_FILE, questions)
    _write_jsonl(root / HIDDEN_DIR / "noise_labels.jsonl", labels)
    return {"rows": len(rows), "noise": dict(sorted(Counter(pair.noise for pair in pairs).items()))}


def _turns(human: str, reply: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": human}, {"from": "gpt", "value": reply}]


# --- instruction data -------------------------------------------------------------------------------------


def make_instructions(count: int, rng: random.Random) -> list[tuple[Scene, Question]]:
    """`count` clean questions on pictures of their own; letters of multiple choice are balanced."""
    kinds = spread(INSTRUCT_MIX, count)
    rng.shuffle(kinds)
    letters = _balanced_letters(rng)
    made: list[tuple[Scene, Question]] = []
    for kind in kinds:
        question = None
        while question is None:
            scene = sample_scene(rng, EVAL_VOCAB)
            question = ask(scene, kind, rng)
        if rng.random() < CHOICE_SHARE:
            question = with_options(question, scene, EVAL_VOCAB, rng, next(letters))
        made.append((scene, question))
    return made


def _balanced_letters(rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(OPTION_LETTERS, len(OPTION_LETTERS))


def _write_instruct(folder: Path, count: int, rng: random.Random) -> dict[str, Any]:
    made = make_instructions(count, rng)
    records = []
    for number, (scene, question) in enumerate(made):
        image = f"images/{number // 1000:05d}/{number:09d}.jpg"
        _save_picture(scene, folder / image)
        prompt = question.prompt()
        if not question.options and rng.random() < OCR_SHARE:
            prompt = with_ocr_hint(prompt, ocr_tokens(scene, rng))
        turns = _turns(f"{LLAVA_IMAGE}\n{prompt}", question.target)
        records.append({"id": f"demo_instruct_{number:06d}", "image": image, "conversations": turns})
    _write_json(folder / INSTRUCT_FILE, records)
    kinds = Counter(f"{question.kind}{'_choice' if question.options else ''}" for _, question in made)
    return {"rows": len(records), "kinds": dict(sorted(kinds.items()))}


# --- evaluation -------------------------------------------------------------------------------------------


def _write_eval(folder: Path, num_textvqa: int, num_mmbench: int, rng: random.Random) -> dict[str, Any]:
    textvqa, mmbench = draw_textvqa(num_textvqa, rng), draw_mmbench(num_mmbench, rng)
    write_textvqa(folder / "textvqa", textvqa, rng)
    write_mmbench(folder / "mmbench" / MMBENCH_FILE, mmbench)
    return chance_levels(textvqa, mmbench)


def _save_picture(scene: Scene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    render(scene).save(path, quality=95)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
