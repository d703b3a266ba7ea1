"""What the tiny BAGEL can do, counted exactly: pictures of held-out combinations, captions and answers on unseen ones.

    python -m bettersynth.demo.bagel.scores FOLDER --per-category 50        # a table as JSON

Pictures are read by rules (:mod:`bettersynth.demo.world.reader`), texts are compared with the scene: no model judges.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bettersynth.core.seed import generator
from bettersynth.demo.bagel.data import DESCRIBE, QUESTIONS, draw_scene
from bettersynth.demo.world.composition import Prompt, Share, Verdict, check, draw_prompts, overall, summary
from bettersynth.demo.world.facts import judge, parse
from bettersynth.demo.world.language import Question, ask
from bettersynth.demo.world.render import render
from bettersynth.demo.world.scene import Scene
from bettersynth.demo.world.vocab import EVAL_VOCAB, Vocabulary
from bettersynth.infer.unified import InterleaveInferencer, load_model

DRAWING: dict[str, Any] = {
    "num_timesteps": 21,
    "timestep_shift": 2.0,
    "cfg_text_scale": 3.0,
    "cfg_interval": (0.0, 1.0),
}
"""How the demo draws: far fewer steps than the full-size model takes."""
BATCH = 16
CAPTION_TOKENS, ANSWER_TOKENS = 60, 8
PARTS = ("object", "colour", "count", "position", "place", "text")


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption of an unseen picture: which of its claims are true, and whether it names everything that is there."""

    scene: Scene
    text: str
    parts: dict[str, bool]
    is_right: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a question about an unseen picture."""

    scene: Scene
    question: Question
    text: str

    @property
    def is_right(self) -> bool:
        """Word for word."""
        return self.text.strip() == self.question.answer


def draw_pictures(
    inferencer: InterleaveInferencer, texts: Sequence[str], *, seed: int = 0, **options: Any
) -> list[Image.Image]:
    """A picture for each text; the seeds count up."""
    found: list[Image.Image] = []
    for start in range(0, len(texts), BATCH):
        part = list(texts[start : start + BATCH])
        seeds = [seed + start + n for n in range(len(part))]
        results = inferencer.generate_batch(part, seeds=seeds, output=("image",), **{**DRAWING, **options})
        found += [result.images[0] for result in results]
    return found


def check_pictures(prompts: Sequence[Prompt], pictures: Sequence[Image.Image]) -> list[Verdict]:
    """What the reader says."""
    return [check(prompt, picture) for prompt, picture in zip(prompts, pictures, strict=True)]


def unseen_scenes(count: int, *, seed: int = 0, vocab: Vocabulary = EVAL_VOCAB) -> list[Scene]:
    """Scenes of combinations that no training picture shows."""
    return [draw_scene(generator(seed, "demo-bagel-unseen", n), vocab) for n in range(count)]


def caption_scenes(inferencer: InterleaveInferencer, scenes: Sequence[Scene]) -> list[Caption]:
    """A caption of each scene's picture, with its verdict."""
    texts = _answers(inferencer, [[render(scene), DESCRIBE[0]] for scene in scenes], CAPTION_TOKENS)
    return [judged_caption(scene, text) for scene, text in zip(scenes, texts, strict=True)]


def judged_caption(scene: Scene, text: str) -> Caption:
    """A caption with what is true of it."""
    facts = parse(text)
    parts = judge(facts, scene)
    is_whole = sum(group.count for group in facts.groups) == len(scene.things) and bool(facts.groups)
    return Caption(scene, text, parts, parts["right"] and is_whole and len(facts.words) == len(scene.signs))


def questions_of(scenes: Sequence[Scene], *, seed: int = 0) -> list[tuple[Scene, Question]]:
    """One question of every kind that each scene allows."""
    asked: list[tuple[Scene, Question]] = []
    for number, scene in enumerate(scenes):
        rng = generator(seed, "demo-bagel-questions", number)
        found = (ask(scene, kind, rng) for kind in QUESTIONS)
        asked += [(scene, question) for question in found if question is not None]
    return asked


def answer_questions(inferencer: InterleaveInferencer, scenes: Sequence[Scene], *, seed: int = 0) -> list[Answer]:
    """All of :func:`questions_of`, answered."""
    asked = questions_of(scenes, seed=seed)
    texts = _answers(inferencer, [[render(scene), question.text] for scene, question in asked], ANSWER_TOKENS)
    return [Answer(scene, question, text) for (scene, question), text in zip(asked, texts, strict=True)]


def _answers(inferencer: InterleaveInferencer, prompts: Sequence[list[Any]], longest: int) -> list[str]:
    found: list[str] = []
    for start in range(0, len(prompts), BATCH):
        part = list(prompts[start : start + BATCH])
        found += [r.text for r in inferencer.generate_batch(part, output=("text",), max_new_tokens=longest)]
    return found


def caption_table(captions: Sequence[Caption]) -> dict[str, Share]:
    """Captions that say everything and nothing wrong, and the single parts of those that speak of them."""
    table = {"whole": Share(sum(c.is_right for c in captions), len(captions))}
    for part in PARTS:
        told = [c.parts[part] for c in captions if part in c.parts]
        table[part] = Share(sum(told), len(told))
    return table


def answer_table(answers: Sequence[Answer]) -> dict[str, Share]:
    """Right answers by kind of question, and of all."""
    table = {}
    for kind in QUESTIONS:
        told = [answer.is_right for answer in answers if answer.question.kind == kind]
        table[kind] = Share(sum(told), len(told))
    table["all"] = Share(sum(answer.is_right for answer in answers), len(answers))
    return table


def evaluate(folder: Path, *, per_category: int, unseen: int, seed: int = 0, **options: Any) -> dict[str, Any]:
    """All scores of a model folder as plain numbers: share and count of each."""
    inferencer = InterleaveInferencer(load_model(folder))
    prompts = draw_prompts(per_category, seed=seed)
    verdicts = check_pictures(prompts, draw_pictures(inferencer, [p.text for p in prompts], seed=seed, **options))
    scenes, table = unseen_scenes(unseen, seed=seed), summary(verdicts)
    plain = {
        "pictures": {name: _plain(row) for name, row in table.items()},
        "captions": _plain(caption_table(caption_scenes(inferencer, scenes))),
        "answers": _plain(answer_table(answer_questions(inferencer, scenes, seed=seed))),
    }
    return {"overall": round(overall(table), 4), **plain}


def _plain(row: Mapping[str, Share]) -> dict[str, list[float]]:
    return {name: [round(share.value, 4), share.of] for name, share in row.items() if share.of}


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line and print the scores as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m bettersynth.demo.bagel.scores",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="folder of a tiny BAGEL, with its autoencoder")
    parser.add_argument("--per-category", type=int, default=50, help="prompts of each of five categories")
    parser.add_argument("--unseen", type=int, default=100, help="pictures to describe and to ask about")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    found = evaluate(
        arguments.folder, per_category=arguments.per_category, unseen=arguments.unseen, seed=arguments.seed
    )
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
