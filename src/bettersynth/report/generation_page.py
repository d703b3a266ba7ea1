"""The page of a generating model: pictures beside their prompts with verdicts, exact scores, captions, a dialogue.

Nothing is computed here, and right and wrong pictures are shown alike, in the order in which they were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bettersynth.report.charts import curves
from bettersynth.report.html import page_frame
from bettersynth.report.pictures import PictureBook
from bettersynth.report.text import Message, both, escape, seconds

_SHOWN_PER_CATEGORY = 30
_MAX_PICTURE_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture with what was asked or said about it.

    Attributes:
        path: relative to the page's root.
        text: the prompt, or the model's caption or answer.
        truth: what is in the picture.
        is_right: the verdict; None without one.
        note: the question, for answers.
    """

    path: str
    text: str
    truth: str
    is_right: bool | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One contribution to a dialogue: a text, or a picture by its path; ``how`` says what decided its kind."""

    is_user: bool
    text: str = ""
    path: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % interval, all in percent."""

    value: float
    low: float
    high: float
    of: int


@dataclass(frozen=True)
class GenerationReport:
    """Everything that the page shows.

    Attributes:
        verdicts: sentences on top, the most important first.
        scores: category to part to rate, of the generated pictures.
        tables: further tables of rates: title (a translatable sentence) to row to rate.
        pictures: generated pictures by category.
        captions, answers: about unseen pictures.
        log: lines of the training log.
        costs: part to (wall seconds, CPU seconds).
    """

    title: str
    command: str
    verdicts: Sequence[Message]
    scores: Mapping[str, Mapping[str, Rate]]
    tables: Mapping[str, Mapping[str, Rate]]
    pictures: Mapping[str, Sequence[ShownPicture]]
    captions: Sequence[ShownPicture]
    answers: Sequence[ShownPicture]
    dialogue: Sequence[Turn]
    log: Sequence[Mapping[str, Any]]
    costs: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


def render_generation(report: GenerationReport, *, root: Path) -> str:
    """The whole page as text; pictures are embedded."""
    book = PictureBook(root, max_bytes=_MAX_PICTURE_BYTES)
    sections = [
        ("scores", both("Scores"), _scores(report)),
        ("pictures", both("Generated pictures"), _pictures(report, book)),
        ("captions", both("Unseen pictures"), _unseen(report, book)),
        ("dialogue", both("Dialogue"), _dialogue(report.dialogue, book)),
        ("training", both("Training"), _training(report.log)),
        ("origin", both("Origin"), _origin(report)),
    ]
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    bodies = "".join(f'<section id="{anchor}"><h2>{title}</h2>{body}</section>' for anchor, title, body in sections)
    head, rest = report.verdicts[0], report.verdicts[1:]
    more = "".join(f'<li class="{message.tone}">{message.html()}</li>' for message in rest)
    lead = f'<p class="verdict {head.tone}">{head.html()}</p><ul class="more">{more}</ul>'
    badge = both("Demo: a tiny model in a procedural world. It says nothing about the full-size model.")
    return page_frame(
        report.title, f'{lead}<p class="badge">{badge}</p>', f'<nav class="contents">{links}</nav>{bodies}'
    )


def _rate(rate: Rate | None) -> str:
    if rate is None or not rate.of:
        return '<td class="num zero-cell">–</td>'
    ends = f"[{rate.low:.0f},&nbsp;{rate.high:.0f}]"
    return f'<td class="num">{rate.value:.1f} <span class="small">{ends}</span></td>'


def _scores(report: GenerationReport) -> str:
    parts = list(dict.fromkeys(part for row in report.scores.values() for part in row))
    head = "".join(f'<th class="num">{both(part)}</th>' for part in parts)
    rows = []
    for name, row in report.scores.items():
        count = max((rate.of for rate in row.values()), default=0)
        cells = "".join(_rate(row.get(part)) for part in parts)
        kind = ' class="total"' if name == "all" else ""
        rows.append(f'<tr{kind}><th scope="row">{both(name)}</th><td class="num">{count}</td>{cells}</tr>')
    said = both(
        "Percent of generated pictures with 95 % intervals, read by rules, not by a model. Every prompt asks for "
        "combinations of colour and kind that no training picture shows. Right: everything that the category asks "
        "for is there. Exact: and nothing else."
    )
    table = (
        f'<div class="card scroll"><p class="small">{said}</p><table><thead><tr><th>{both("category")}</th>'
        f'<th class="num">{both("pictures")}</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
    return table + "".join(_small_table(title, rows) for title, rows in report.tables.items())


def _small_table(title: str, rates: Mapping[str, Rate]) -> str:
    shown = {name: rate for name, rate in rates.items() if rate.of}
    head = "".join(f'<th class="num">{both(name)}</th>' for name in shown)
    cells = "".join(_rate(rate) for rate in shown.values())
    counts = "".join(f'<td class="num small">{rate.of}</td>' for rate in shown.values())
    return (
        f'<div class="card scroll"><h4>{both(title)}</h4><table><thead><tr>{head}</tr></thead>'
        f"<tbody><tr>{cells}</tr><tr>{counts}</tr></tbody></table></div>"
    )


def _pictures(report: GenerationReport, book: PictureBook) -> str:
    parts = []
    for name, pictures in report.pictures.items():
        right = sum(bool(picture.is_right) for picture in pictures)
        count = both("{right} of {n} right", right=right, n=len(pictures))
        first = "".join(_shot(picture, book) for picture in pictures[:_SHOWN_PER_CATEGORY])
        rest = "".join(_shot(picture, book) for picture in pictures[_SHOWN_PER_CATEGORY:])
        more = f'<details><summary>{both("The rest")}</summary><div class="gallery">{rest}</div></details>'
        title = f'<h4>{both(name)} <span class="small">{count}</span></h4>'
        parts.append(f'<div class="card">{title}<div class="gallery">{first}</div>{more if rest else ""}</div>')
    return "".join(parts)


def _mark(is_right: bool | None) -> str:
    if is_right is None:
        return ""
    return f'<span class="tag {"good" if is_right else "bad"}">{both("right" if is_right else "wrong")}</span> '


def _image(path: str, book: PictureBook, text: str) -> str:
    uri = book.uri(path)
    if uri is None:
        return f'<div class="noimage">{escape(book.shown(path))}</div>'
    return f'<img src="{uri}" alt="{escape(text)}">'


def _shot(picture: ShownPicture, book: PictureBook) -> str:
    note = f"<b>{escape(picture.note)}</b><br>" if picture.note else ""
    seen = ""
    if picture.is_right is False:
        seen = f'<br><span class="small">{both("there is: {things}", things=picture.truth or "–")}</span>'
    said = f"{_mark(picture.is_right)}{note}{escape(picture.text)}{seen}"
    return f'<figure class="shot">{_image(picture.path, book, picture.text)}<figcaption>{said}</figcaption></figure>'


def _unseen(report: GenerationReport, book: PictureBook) -> str:
    captions = "".join(_shot(picture, book) for picture in report.captions)
    answers = "".join(_shot(picture, book) for picture in report.answers)
    return (
        f'<div class="card"><h4>{both("Captions")}</h4><div class="gallery">{captions}</div></div>'
        f'<div class="card"><h4>{both("Questions")}</h4><div class="gallery">{answers}</div></div>'
    )


def _dialogue(turns: Sequence[Turn], book: PictureBook) -> str:
    rows = []
    for turn in turns:
        who = both("user") if turn.is_user else both("model")
        body = f"<p>{escape(turn.text)}</p>" if turn.text else ""
        if turn.path:
            body += f'<figure class="shot drawn">{_image(turn.path, book, turn.text)}</figure>'
        how = f'<p class="small">{escape(turn.how)}</p>' if turn.how else ""
        rows.append(f'<div class="said {"user" if turn.is_user else "own"}"><h5>{who}</h5>{body}{how}</div>')
    return f'<div class="card">{"".join(rows)}</div>'


def _training(log: Sequence[Mapping[str, Any]]) -> str:
    figures = []
    for number, (key, caption) in enumerate(
        (("text_loss", "text loss, nats per token"), ("image_loss", "image loss, squared error of the velocity")), 1
    ):
        series = [(float(line["step"]), float(line[key])) for line in log if key in line]
        figures.append(curves(both(caption), [(key, number, series)], from_zero=False))
    return f'<div class="card"><div class="curves">{"".join(figures)}</div></div>'


def _origin(report: GenerationReport) -> str:
    def pairs(title: str, values: Mapping[str, str]) -> str:
        cells = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in values.items())
        return f"<h4>{both(title)}</h4><dl class='facts'>{cells}</dl>" if values else ""

    costs = {name: f"{seconds(wall)} wall, {cpu:.1f} s CPU" for name, (wall, cpu) in report.costs.items()}
    command = f"<h4>{both('Command')}</h4><pre>{escape(report.command)}</pre>"
    body = command + pairs("Facts", report.facts) + pairs("Cost", costs) + pairs("Digests", report.digests)
    return f'<div class="card">{body}</div>'
