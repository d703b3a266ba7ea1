"""The demo of joint training: continue the shipped tiny BAGEL, draw held-out prompts, score, describe, talk, report.

Every part is finished by a manifest, so a killed demo continues when it is run again, with the same bytes at the end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bettersynth.core.artifact import Artifact, write_atomic, write_manifest
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.meter import Meter
from bettersynth.core.record import StageCost
from bettersynth.demo.bagel import scores
from bettersynth.demo.bagel.autoencoder import load_autoencoder
from bettersynth.demo.bagel.data import write_records
from bettersynth.demo.bagel.page import PAGE, build_page
from bettersynth.demo.world.composition import Verdict, check, draw_prompts, prompt_of
from bettersynth.demo.world.render import render
from bettersynth.infer.unified import InterleaveInferencer, load_model
from bettersynth.infer.unified_run import RESULTS, Job, model_digest, png, run_jobs
from bettersynth.infer.unified_types import request_of
from bettersynth.models.bagel.convert import load_checkpoint, save_checkpoint
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage

Say = Callable[[str], None]

WEIGHTS = Path(__file__).parent.parent / "weights" / "bagel-tiny"
SETTINGS_FILE = "hidden/bagel.json"
ANSWERS = "answers.json"
PARTS = ("records", "training", "pictures", "answers", "report")
DIALOGUE = (
    "draw a purple cup and a yellow star",
    "What color is the cup?",
    "How many objects are there?",
    "Where is the star?",
    "describe the picture",
    "draw three white hats",
    "How many hats are there?",
)
"""One conversation with two pictures; all combinations are held out."""
CONTINUED = {"lr": 1e-4, "warmup_ratio": 0.05, "logging_steps": 10, "save_steps": 50}
"""A gentle rate: the shipped weights come from a way down to zero."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done.

    Attributes:
        records: of the continued training; shown: samples of it, repetitions counted.
        per_category: prompts of each of five categories.
        unseen: pictures that are described and asked about.
        points: points in time of a drawing.
    """

    records: int
    shown: int
    per_category: int
    unseen: int
    points: int


DEMO, QUICK = Sizes(2400, 4800, 50, 60, 21), Sizes(24, 48, 2, 3, 6)


@dataclass(frozen=True)
class BagelResult:
    """What the demo made."""

    root: Path
    page: Path
    verdicts: tuple[Verdict, ...]
    captions: tuple[scores.Caption, ...]
    answers: tuple[scores.Answer, ...]
    costs: tuple[StageCost, ...]


def run_bagel_demo(out: Path, *, is_quick: bool, seed: int, say: Say, command: str) -> BagelResult:
    """Run everything that is not finished yet.

    Args:
        out: folder of the demo.
        is_quick: a few steps and pictures: shows that everything works, and nothing more.
        seed: of the training records, of the prompts and of all noise.
        say: told of each finished part.
        command: what the user typed, for the page.

    Raises:
        DataError: the shipped weights are missing, or nothing can be written.
    """
    root, sizes = out.absolute(), QUICK if is_quick else DEMO
    _begin(root, {"sizes": asdict(sizes), "seed": seed})
    costs = [_records(root, sizes, seed)]
    say(t("records: {n} of the demo world, base combinations only", n=sizes.records))
    costs.append(_training(root, sizes))
    inferencer = InterleaveInferencer(load_model(root / "training"))
    costs.append(_pictures(root, sizes, seed, inferencer, say))
    say(t("pictures: {n} prompts of held-out combinations drawn", n=5 * sizes.per_category))
    verdicts, cost = _verdicts(root)
    costs.append(cost)
    captions, answers, dialogue, cost = _answers(root, sizes, seed, inferencer)
    costs.append(cost)
    say(t("texts: {n} unseen pictures described and asked about, one dialogue held", n=sizes.unseen))
    page = build_page(root, verdicts, captions, answers, dialogue, costs=costs, command=command)
    return BagelResult(root, page, tuple(verdicts), tuple(captions), tuple(answers), tuple(costs))


def plan_bagel_demo(out: Path, *, is_quick: bool, seed: int) -> list[tuple[str, str, str]]:
    """What :func:`run_bagel_demo` would do: part, ``done`` or ``to do``, and a detail. Writes nothing."""
    root, sizes = out.absolute(), QUICK if is_quick else DEMO
    is_same = _held(root) == {"sizes": asdict(sizes), "seed": seed}
    details = {
        "records": str(sizes.records),
        "training": t("{n} samples", n=sizes.shown),
        "pictures": str(5 * sizes.per_category),
        "answers": t("{n} pictures", n=sizes.unseen),
        "report": PAGE,
    }
    return [
        (part, t("done") if is_same and Artifact.exists(root / part) else t("to do"), details[part]) for part in PARTS
    ]


def _held(root: Path) -> Any:
    try:
        return json.loads((root / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _begin(root: Path, settings: Mapping[str, Any]) -> None:
    """Throw away the parts of a demo with other settings."""
    if _held(root) != settings:
        for part in PARTS:
            shutil.rmtree(root / part, ignore_errors=True)
        write_atomic(root / SETTINGS_FILE, json.dumps(settings, sort_keys=True).encode())


def write_model(folder: Path, weights: Path = WEIGHTS) -> None:
    """The shipped tiny BAGEL as an official folder, in float32, its autoencoder with it.

    Raises:
        DataError: files are missing.
    """
    if not (weights / "ema.safetensors").is_file():
        raise DataError(t("file not found"), where=str(weights), hint="python -m bettersynth.demo.bagel.pretrain")
    model = load_checkpoint(weights, dtype=torch.float32, has_vae=False)
    model.set_autoencoder(load_autoencoder())
    save_checkpoint(model, folder)


def _records(root: Path, sizes: Sizes, seed: int) -> StageCost:
    folder = root / "records"
    with Meter("records") as meter:
        if not Artifact.exists(folder):
            write_model(folder / "start")
            kinds = write_records(folder, count=sizes.records, seed=seed, name="demo")
            files = sorted(f"start/{path.name}" for path in (folder / "start").iterdir())
            write_manifest(folder, kind="dataset", facts={"kinds": kinds, "seed": seed}, files=["demo.jsonl", *files])
    return _kept_cost(root, meter.cost)


def _training(root: Path, sizes: Sizes) -> StageCost:
    places = {"data": root / "records" / "demo.jsonl", "init_from": root / "records" / "start"}
    changed = {**CONTINUED, **places, "samples_seen": sizes.shown}
    config = stage_settings(load_preset("bagel_demo"), 2, changed)
    with Meter("training") as meter:
        run_stage(config, out=root / "training")
    return _kept_cost(root, meter.cost)


def _pictures(root: Path, sizes: Sizes, seed: int, inferencer: InterleaveInferencer, say: Say) -> StageCost:
    options = {**scores.DRAWING, "num_timesteps": sizes.points, "output": ("image",)}
    prompts = draw_prompts(sizes.per_category, seed=seed)
    jobs = [Job(p.id, request_of(p.text, {**options, "seed": n + 1000 * seed})) for n, p in enumerate(prompts)]
    folder = root / "pictures"
    with Meter("pictures") as meter:
        if not Artifact.exists(folder):
            run_jobs(inferencer, jobs, folder, digest=model_digest(root / "training"), batch_size=scores.BATCH)
            lines = [{"id": prompt.id, "prompt": prompt.text} for prompt in prompts]
            write_atomic(folder / "prompts.json", json.dumps(lines).encode())
    return _kept_cost(root, meter.cost)


def _verdicts(root: Path) -> tuple[list[Verdict], StageCost]:
    """What the reader says of every picture; it is quick enough to be asked again."""
    folder = root / "pictures"
    lines = {line["id"]: line for line in _json_lines(folder / RESULTS)}
    asked = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    found = []
    with Meter("verdicts") as meter:
        for one in asked:
            with Image.open(folder / lines[one["id"]]["outputs"][0]["image"]) as picture:
                found.append(check(prompt_of(one["id"], one["prompt"]), picture.convert("RGB")))
    return found, _kept_cost(root, meter.cost)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _answers(
    root: Path, sizes: Sizes, seed: int, inferencer: InterleaveInferencer
) -> tuple[list[scores.Caption], list[scores.Answer], list[dict[str, str]], StageCost]:
    """Captions and answers about unseen pictures, and the dialogue."""
    folder, scenes = root / "answers", scores.unseen_scenes(sizes.unseen, seed=seed)
    with Meter("answers") as meter:
        if not Artifact.exists(folder):
            captions = scores.caption_scenes(inferencer, scenes)
            answers = scores.answer_questions(inferencer, scenes, seed=seed)
            dialogue = _talk(folder, seed, inferencer)
            for number, scene in enumerate(scenes):
                write_atomic(folder / f"unseen-{number:03d}.png", png(render(scene)))
            said = {
                "captions": [caption.text for caption in captions],
                "answers": [answer.text for answer in answers],
                "dialogue": dialogue,
            }
            write_atomic(folder / ANSWERS, (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())
            files = sorted(path.name for path in folder.iterdir())
            write_manifest(folder, kind="predictions", facts={"unseen": sizes.unseen, "seed": seed}, files=files)
    said = json.loads((folder / ANSWERS).read_text(encoding="utf-8"))
    captions = [scores.judged_caption(scene, text) for scene, text in zip(scenes, said["captions"], strict=True)]
    asked = scores.questions_of(scenes, seed=seed)
    answers = [scores.Answer(*one, text) for one, text in zip(asked, said["answers"], strict=True)]
    return captions, answers, said["dialogue"], _kept_cost(root, meter.cost)


def _talk(folder: Path, seed: int, inferencer: InterleaveInferencer) -> list[dict[str, str]]:
    """The dialogue's turns: who, text or picture, and what decided which of them came."""
    talk = inferencer.dialogue(**scores.DRAWING, max_new_tokens=scores.CAPTION_TOKENS)
    turns: list[dict[str, str]] = []
    for number, words in enumerate(DIALOGUE):
        turns.append({"who": "user", "text": words})
        result = talk.say(words, seed=seed + number, output="rule")
        for output in result.outputs:
            how = f"{output.decision.how}: {output.decision.reason}"
            turn = {"who": "model", "text": output.text, "how": how}
            if output.image is not None:
                turn["path"] = f"dialogue-{number}.png"
                write_atomic(folder / turn["path"], png(output.image))
            turns.append(turn)
    return turns


def _kept_cost(root: Path, cost: StageCost) -> StageCost:
    """The cost of the run that did the work: of a part that was finished before, what it cost then."""
    path = root / "hidden" / f"cost-{cost.stage}.json"
    held = StageCost(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    if held is not None and held.cpu_s > cost.cpu_s:
        return held
    write_atomic(path, json.dumps(asdict(cost)).encode())
    return cost
