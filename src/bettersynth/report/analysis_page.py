"""The page of an analysis: scores by group with intervals, errors, agreement, and the questions that changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bettersynth.core.analysis import Agreement, Analysis, ChangedQuestion, Group, ProtocolAnalysis
from bettersynth.core.artifact import Artifact, write_atomic, write_manifest
from bettersynth.core.record import EvalResult, Interval, Picture
from bettersynth.report.charts import axis_row, difference_strip, nice_top, score_strip, stacked_bar
from bettersynth.report.html import page_frame
from bettersynth.report.pictures import PictureBook, Thumbnailer, fill
from bettersynth.report.text import Message, both, escape, interval, p_value, points, signed

PAGE = "analysis.html"
DATA = "analysis.json"
GROUP_TITLES = {
    "category": "By category",
    "question type": "By question type",
    "answer length": "By length of the expected answer",
    "answer kind": "By kind of the expected answer",
}
_TONES = {"better": "good", "worse": "bad"}
_OPEN_ROWS = 12
"""Longer lists begin folded away."""


def build_analysis(analysis: Analysis, out: Path, *, thumbnail: Thumbnailer | None = None) -> Artifact:
    """Write ``analysis.html`` and ``analysis.json`` (every figure and every changed question) with a manifest."""
    write_atomic(out / PAGE, render_analysis(analysis, thumbnail=thumbnail).encode())
    write_atomic(out / DATA, json.dumps(asdict(analysis), ensure_ascii=False, indent=1).encode())
    facts = {"a": analysis.name_a, "b": analysis.name_b, "protocols": [p.protocol for p in analysis.protocols]}
    run = {"command": analysis.command}
    return write_manifest(out, kind="report", facts=facts, files=[PAGE, DATA], parents=analysis.digests, run=run)


def render_analysis(analysis: Analysis, *, root: Path | None = None, thumbnail: Thumbnailer | None = None) -> str:
    """The page as text; all names, questions and answers are escaped."""
    book = PictureBook(root or Path.cwd(), thumbnail)
    title = f"{analysis.name_b} / {analysis.name_a}" if analysis.name_b else analysis.name_a
    links = "".join(f'<a href="#p{n}">{escape(protocol.protocol)}</a>' for n, protocol in enumerate(analysis.protocols))
    bodies = "".join(
        f'<section id="p{n}"><h2>{escape(protocol.protocol)}</h2>{_protocol(analysis, protocol, book)}</section>'
        for n, protocol in enumerate(analysis.protocols)
    )
    origin = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td><code>{escape(digest)}</code></td></tr>"
        for name, digest in analysis.digests.items()
    )
    command = f"<pre>{escape(analysis.command)}</pre>" if analysis.command else ""
    end = (
        f'<section id="origin"><h2>{both("Origin")}</h2>{command}<details>'
        f"<summary>{both('Where these scores come from')}</summary>"
        f'<div class="scroll"><table><tbody>{origin}</tbody></table></div></details></section>'
    )
    return page_frame(title, _lead(analysis), f'<nav class="contents">{links}</nav>{bodies}{end}')


# ---------------------------------------------------------------- sentences


def sentences(analysis: Analysis) -> list[Message]:
    """One sentence per protocol, in the words of the reports."""
    return [_sentence(analysis, protocol) for protocol in analysis.protocols]


def _sentence(analysis: Analysis, found: ProtocolAnalysis) -> Message:
    facts: dict[str, object] = {"a": analysis.name_a, "b": analysis.name_b, "protocol": found.protocol}
    facts |= {"score_a": points(found.a.value), "interval_a": interval(found.a), "chance": points(found.chance)}
    if found.b is None or found.difference is None:
        if found.verdict == "at chance":
            alone = "{a} is at chance on {protocol}: {score_a} % {interval_a} where guessing gives {chance} %."
            return Message(alone, facts, "bad")
        return Message("{a} scores {score_a} % {interval_a} on {protocol}; guessing gives {chance} %.", facts)
    facts |= {"score_b": points(found.b.value), "difference": signed(found.difference.value)}
    facts |= {"interval": interval(found.difference), "better": len(found.fixed), "worse": len(found.broken)}
    return Message(_COMPARED[found.verdict], facts, _TONES.get(found.verdict, "plain"))


_WON = (
    "{b} scores {difference} points {interval} against {a} on {protocol}: {score_b} % and {score_a} %. Questions "
    "answered better: {better}, worse: {worse}."
)
_COMPARED = {
    "better": _WON,
    "worse": _WON,
    "tie": (
        "Tie on {protocol}: {b} {score_b} %, {a} {score_a} %, difference {difference} points {interval}. Questions "
        "answered better: {better}, worse: {worse}."
    ),
    "at chance": (
        "At chance on {protocol}: neither {a} ({score_a} %) nor {b} ({score_b} %) is clearly above {chance} %."
    ),
}


def _lead(analysis: Analysis) -> str:
    head, *rest = sentences(analysis)
    parts = [f'<p class="verdict {head.tone}">{head.html()}</p>']
    if rest:
        parts.append(f'<ul class="more">{"".join(f"<li>{message.html()}</li>" for message in rest)}</ul>')
    if analysis.name_b and max(analysis.num_seeds) == 1:
        note = both("One checkpoint each: this speaks of these two models, not of what they were trained on.")
    elif analysis.name_b:
        a, b = analysis.num_seeds
        note = both("Means over {a} and {b} seeds; intervals cover other questions and other seeds.", a=a, b=b)
    else:
        note = both("Intervals cover other questions; questions on one picture are kept together.")
    return "".join([*parts, f'<p class="small">{note}</p>'])


# ---------------------------------------------------------------- one protocol


def _protocol(analysis: Analysis, found: ProtocolAnalysis, book: PictureBook) -> str:
    parts = []
    if "no question files" in found.notes:
        text = both("The question files were not found, so there are no question types and no pictures: give --data.")
        parts.append(f'<p class="alarm">{text}</p>')
    for kind, title in GROUP_TITLES.items():
        groups = [group for group in found.groups if group.kind == kind]
        if groups:
            parts.append(_groups(both(title), groups, found))
    if found.errors:
        note = both("Share of all questions, in percent; every wrong answer has one name, the first that fits.")
        parts.append(_groups(both("What is wrong with wrong answers"), found.errors, found, note))
    if found.agreement is not None:
        parts.append(_agreement(analysis, found.agreement))
    for changed, title in ((found.broken, "Became worse"), (found.fixed, "Became better")):
        if changed:
            parts.append(_gallery(analysis, changed, both(title), book))
    return "".join(parts)


def _groups(title: str, groups: Sequence[Group], found: ProtocolAnalysis, note: str = "") -> str:
    is_error = groups[0].kind == "error"
    if found.b is None:
        top = min(100.0, nice_top(1.04 * max(group.a.high for group in groups)))
        rows = "".join(_score_row(group, top, 0.0 if is_error else found.chance) for group in groups)
        axis = axis_row(top, unit=" %")
        note = note or both("Percent with 95 % intervals; dashed line: chance on all questions.")
    else:
        ends = [
            abs(end) for group in groups if group.difference for end in (group.difference.low, group.difference.high)
        ]
        reach = min(100.0, nice_top(1.04 * max(ends)))
        rows = "".join(_difference_row(group, reach, is_error) for group in groups)
        axis = axis_row(reach, -reach)
        note = note or both(
            "Difference in points on the same questions, with its 95 % interval; coloured where it holds after Holm's "
            "correction for the groups of this list."
        )
    body = (
        f'<p class="small">{note}</p><div class="scores wider">{rows}'
        f'<div class="row"><span></span>{axis}<span></span></div></div>{_figures(groups)}'
    )
    if len(groups) > _OPEN_ROWS:
        count = both("{n} groups", n=len(groups))
        heading = f'<summary class="big">{title} <span class="small">{count}</span></summary>'
        return f'<details class="card">{heading}{body}</details>'
    return f'<div class="card"><h3>{title}</h3>{body}</div>'


def _name(group: Group) -> str:
    """Names that we made are translated, those of a benchmark are not."""
    return escape(group.name) if group.kind == "category" else both(group.name)


def _label(group: Group) -> str:
    count = "" if group.kind == "error" else f' <span class="small">{group.num_questions:,}</span>'
    return f'<span class="name">{_name(group)}{count}</span>'


def _score_row(group: Group, top: float, chance: float) -> str:
    result = EvalResult("", "", group.a, group.num_questions, chance, "", at_chance=False)
    value = f"<b>{points(group.a.value)}</b> <span class='small'>{interval(group.a)}</span>"
    return f'<div class="row">{_label(group)}{score_strip(result, top, 1)}<span class="value">{value}</span></div>'


def _difference_row(group: Group, reach: float, is_error: bool) -> str:
    difference = group.difference or Interval(0.0, 0.0, 0.0)
    tone = _TONES.get(group.verdict, "plain")
    if is_error and tone != "plain":  # fewer errors are good
        tone = "bad" if tone == "good" else "good"
    value = f"<b>{signed(difference.value)}</b> <span class='small'>{interval(difference)}</span>"
    return (
        f'<div class="row">{_label(group)}{difference_strip(difference, reach, tone)}<span class="value">{value}</span>'
        "</div>"
    )


def _figures(groups: Sequence[Group]) -> str:
    rows = []
    for group in groups:
        cells = [f"{group.num_questions:,}", f"{points(group.a.value)} {interval(group.a)}"]
        if group.b is not None and group.difference is not None:
            cells += [f"{points(group.b.value)} {interval(group.b)}"]
            cells += [f"{signed(group.difference.value)} {interval(group.difference)}", p_value(group.p_value_holm)]
        numbers = "".join(f'<td class="num">{cell}</td>' for cell in cells)
        rows.append(f'<tr><th scope="row">{_name(group)}</th>{numbers}</tr>')
    words = ["questions", "a"] + (["b", "b − a", "p (Holm)"] if groups[0].b is not None else [])
    head = "<th></th>" + "".join(f'<th class="num">{both(word)}</th>' for word in words)
    return (
        f'<details><summary>{both("All figures")}</summary><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _agreement(analysis: Analysis, found: Agreement) -> str:
    cells = (
        ("kept", both("both right"), found.both_right),
        ("dropped", both("only {name} right", name=analysis.name_a), found.only_a),
        ("made", both("only {name} right", name=analysis.name_b), found.only_b),
        ("failed", both("both wrong"), found.both_wrong),
    )
    tiles = "".join(
        f'<div class="tile"><b>{points(value.value)} %</b><span><i class="swatch {kind}"></i>{label}<br>'
        f"{interval(value)}</span></div>"
        for kind, label, value in cells
    )
    bar = stacked_bar([(kind, value.value) for kind, _, value in cells], 100.0)
    facts = [(both("same answer"), f"{points(found.same_answer.value)} % {interval(found.same_answer)}")]
    if found.same_wrong is not None:
        label = both("same wrong answer, where both are wrong")
        facts.append((label, f"{points(found.same_wrong.value)} % {interval(found.same_wrong)}"))
    if found.kappa is not None:
        kappa = f"{found.kappa.value:.2f} [{found.kappa.low:.2f}, {found.kappa.high:.2f}]"
        facts.append((both("Cohen's kappa of being right"), kappa.replace("-", "\N{MINUS SIGN}")))
    for name, value in ((analysis.name_a, found.within_a), (analysis.name_b, found.within_b)):
        if value is not None:
            facts.append((both("same answer between two seeds of {name}", name=name), f"{points(value)} %"))
    if found.p_mcnemar is not None:
        facts.append((both("p of McNemar's exact test"), p_value(found.p_mcnemar)))
    listed = "".join(f"<dt>{label}</dt><dd>{value}</dd>" for label, value in facts)
    return (
        f'<div class="card"><h3>{both("Agreement")}</h3><div class="tiles">{tiles}</div>{bar}'
        f'<dl class="facts">{listed}</dl></div>'
    )


# ---------------------------------------------------------------- galleries


def _gallery(analysis: Analysis, changed: Sequence[ChangedQuestion], title: str, book: PictureBook) -> str:
    pictures = [Picture(change.picture, change.question_id) for change in changed]
    filled = fill(book, {"changed": pictures})["changed"]
    shown = "".join(
        _card(analysis, change, picture.path, uri) for change, (picture, uri) in zip(changed, filled, strict=False)
    )
    count = both("{shown} of {total} shown", shown=len(filled), total=len(changed))
    return (
        f'<details class="card" open><summary class="big">{title} <span class="small">{count}</span></summary>'
        f'<div class="pairs">{shown}</div></details>'
    )


def _card(analysis: Analysis, change: ChangedQuestion, name: str, uri: str | None) -> str:
    label = escape(name or change.question_id)
    image = (
        f'<img src="{uri}" alt="{label}" title="{label}" loading="lazy">'
        if uri
        else f'<div class="noimage">{both("no picture")}<br>{label}</div>'
    )
    question = f"<p><b>{escape(change.question)}</b></p>" if change.question else ""
    expected = f'<p class="small">{both("expected")}: {escape(change.expected)}</p>'
    answers = "".join(
        f'<div class="{kind}"><span class="small">{escape(who)}: {both(error)}</span>'
        f"<p>{escape(text) or '&nbsp;'}</p></div>"
        for kind, who, error, text in (
            ("was", analysis.name_a, change.error_before, change.before),
            ("is", analysis.name_b, change.error_after, change.after),
        )
    )
    note = f"{change.question_id}, {signed(100 * change.difference)}"
    return (
        f'<figure class="pair">{image}<div class="texts">{question}{expected}{answers}'
        f'<p class="small">{escape(note)}</p></div></figure>'
    )
