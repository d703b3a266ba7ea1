"""What the bagel demo's page shows: scores, pictures, captions, answers, dialogue and curves as plain records."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from bettersynth.core.artifact import Artifact, write_atomic, write_manifest
from bettersynth.core.record import StageCost
from bettersynth.demo.bagel import scores
from bettersynth.demo.bagel.data import describe
from bettersynth.demo.world.composition import Share, Verdict, summary
from bettersynth.demo.world.scene import Thing
from bettersynth.report.generation_page import GenerationReport, Rate, ShownPicture, Turn, render_generation
from bettersynth.report.text import Message
from bettersynth.train.callbacks import LOG_FILE, read_log

PAGE = "report.html"
_SHOWN_CAPTIONS, _SHOWN_ANSWERS = 30, 30
_COLUMNS = ("right", "exact", "object", "colour", "count", "position", "text")


def build_page(
    root: Path,
    verdicts: Sequence[Verdict],
    captions: Sequence[scores.Caption],
    answers: Sequence[scores.Answer],
    dialogue: Sequence[Mapping[str, str]],
    *,
    costs: Sequence[StageCost],
    command: str,
) -> Path:
    """Write ``report/report.html`` and its manifest; returns the page's path."""
    parts = {name: Artifact.load(root / name) for name in ("records", "training", "pictures", "answers")}
    log = read_log(root / "training" / LOG_FILE)
    report = GenerationReport(
        title="bettersynth demo bagel",
        command=command,
        verdicts=_sentences(verdicts, captions, answers, log),
        scores=_score_rows(verdicts),
        tables={
            "Captions of unseen pictures": _rates(scores.caption_table(captions)),
            "Answers about unseen pictures": _rates(scores.answer_table(answers)),
        },
        pictures=_picture_rows(verdicts),
        captions=_caption_rows(captions),
        answers=_answer_rows(answers, captions),
        dialogue=[_turn(turn) for turn in dialogue],
        log=log,
        costs={cost.stage: (cost.wall_s, cost.cpu_s) for cost in costs},
        facts=_facts(parts),
        digests={name: artifact.digest for name, artifact in parts.items()},
    )
    page = root / "report" / PAGE
    write_atomic(page, render_generation(report, root=root).encode())
    write_manifest(
        page.parent, kind="report", facts={"title": report.title}, files=[PAGE], parents=dict(report.digests)
    )
    return page


def _sentences(
    verdicts: Sequence[Verdict],
    captions: Sequence[scores.Caption],
    answers: Sequence[scores.Answer],
    log: Sequence[Mapping[str, float]],
) -> list[Message]:
    table = summary(verdicts)
    said = {name: f"{100 * table[name]['right'].value:.0f}" for name in ("single", "two", "counting") if name in table}
    right = table["all"]["right"]
    head = Message(
        "Of {n} pictures of combinations that it never saw, {right} show what was asked for.",
        {"n": right.of, "right": right.right},
        "good" if right.value >= 0.5 else "bad",
    )
    rest = [
        Message("Right: one object {single} %, two objects {two} %, counted objects {counting} %.", said)
        if len(said) == 3
        else Message("Too few categories to compare."),
        Message(
            "{right} of {n} unseen pictures described wholly right, {answered} of {asked} questions answered right.",
            {
                "right": sum(caption.is_right for caption in captions),
                "n": len(captions),
                "answered": sum(answer.is_right for answer in answers),
                "asked": len(answers),
            },
        ),
    ]
    for key, template in (
        ("image_loss", "Image loss from {first} to {last} in the continued training."),
        ("text_loss", "Text loss from {first} to {last} in the continued training."),
    ):
        values = [line[key] for line in log if key in line]
        if values:
            rest.append(Message(template, {"first": f"{values[0]:.3f}", "last": f"{values[-1]:.3f}"}))
    return [head, *rest]


def _rate(share: Share) -> Rate:
    low, high = share.interval
    return Rate(100 * share.value, 100 * low, 100 * high, share.of)


def _rates(row: Mapping[str, Share]) -> dict[str, Rate]:
    return {name: _rate(share) for name, share in row.items()}


def _score_rows(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Rate]]:
    return {name: {part: _rate(row[part]) for part in _COLUMNS} for name, row in summary(verdicts).items()}


def _things(things: Sequence[Thing]) -> str:
    return ", ".join(f"{thing.colour} {thing.kind}" for thing in things)


def _picture_rows(verdicts: Sequence[Verdict]) -> dict[str, list[ShownPicture]]:
    rows: dict[str, list[ShownPicture]] = {}
    for verdict in verdicts:
        seen = ", ".join(part for part in (_things(verdict.reading.things), *verdict.reading.words) if part)
        path = f"pictures/{verdict.prompt.id}-0.png"
        shown = ShownPicture(path, verdict.prompt.text, seen, verdict.is_right)
        rows.setdefault(verdict.prompt.category, []).append(shown)
    return rows


def _caption_rows(captions: Sequence[scores.Caption]) -> list[ShownPicture]:
    return [
        ShownPicture(f"answers/unseen-{number:03d}.png", one.text, describe(one.scene), one.is_right)
        for number, one in enumerate(captions[:_SHOWN_CAPTIONS])
    ]


def _answer_rows(answers: Sequence[scores.Answer], captions: Sequence[scores.Caption]) -> list[ShownPicture]:
    """Every so many answers, so that all kinds of questions and many pictures are shown."""
    places = {id(caption.scene): number for number, caption in enumerate(captions)}
    stride = max(1, len(answers) // _SHOWN_ANSWERS)
    return [
        ShownPicture(
            f"answers/unseen-{places[id(one.scene)]:03d}.png",
            one.text,
            one.question.answer,
            one.is_right,
            note=one.question.text,
        )
        for one in answers[::stride][:_SHOWN_ANSWERS]
    ]


def _turn(turn: Mapping[str, str]) -> Turn:
    path = f"answers/{turn['path']}" if "path" in turn else ""
    return Turn(turn["who"] == "user", turn.get("text", ""), path, turn.get("how", ""))


def _facts(parts: Mapping[str, Artifact]) -> dict[str, str]:
    training = parts["training"]
    return {
        "records": json.dumps(parts["records"].facts["kinds"]),
        "steps": str(training.facts["steps"]),
        "samples": str(training.facts["samples_seen"]),
        "weights": str(training.facts["weights_digest"]),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
