"""Tables for a terminal: aligned by what the eye sees, Chinese included; readable without colour."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

from bettersynth.core.lang import t
from bettersynth.core.record import FilterQuality, ReportInput
from bettersynth.report.text import (
    interval,
    p_value,
    points,
    precision_and_recall,
    signed,
)
from bettersynth.report.verdict import protocols, require_provenance, verdict_of, verdicts

_COLOURS = {"good": "32", "bad": "31", "bold": "1"}
_PAGE_COLUMNS = 120
_LONGEST_WORD = 32
_WORDS = re.compile(r"(?:\[[^\]\s]*(?:, [^\]\s]*)?\]|\S)+")
"""Words; ``[1.0, 2.0]`` is one word."""


def display_width(text: str) -> int:
    """Columns that a text takes on a terminal: 2 for wide characters, 0 for combining ones."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def pad(text: str, width: int, align: str = "<") -> str:
    """The text filled with spaces to ``width`` columns; ``align`` is ``<`` or ``>``."""
    space = " " * max(0, width - display_width(text))
    return text + space if align == "<" else space + text


def use_colour() -> bool:
    """Colour only on a terminal that did not refuse it (NO_COLOR, dumb terminals)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, tone: str, colour: bool) -> str:
    """The text in a colour (``good``, ``bad``, ``bold``), or as it is."""
    return f"\x1b[{_COLOURS[tone]}m{text}\x1b[0m" if colour and tone in _COLOURS else text


def terminal_width() -> int:
    """Columns to fill: COLUMNS if it is set, else the terminal's, else (a file or pipe) 120."""
    return shutil.get_terminal_size((_PAGE_COLUMNS, 24)).columns


def render_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "", *, width: int | None = None
) -> str:
    """A plain table with a rule under its header; cells of a table that is too wide go on below themselves.

    Args:
        align: one of ``<`` and ``>`` per column; missing ones are ``<``.
        width: columns to fit into, where words allow it; None means :func:`terminal_width`.
    """
    sides = align.ljust(len(header), "<")
    cells = [list(header), *[list(row) for row in rows]]
    widths = _column_widths(cells, terminal_width() if width is None else width)

    def lines_of(row: Sequence[str]) -> list[str]:
        wrapped = [wrap(cell, room) for cell, room in zip(row, widths, strict=True)]
        return [
            "  ".join(pad(part, room, side) for part, room, side in zip(parts, widths, sides, strict=True)).rstrip()
            for parts in zip_longest(*wrapped, fillvalue="")
        ]

    lines = [*lines_of(cells[0]), "  ".join("-" * room for room in widths)]
    for row in cells[1:]:
        lines += lines_of(row)
    return "\n".join(lines)


def _column_widths(rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Natural widths, or less for the widest columns until the table fits or every column is down to its words."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(display_width, column)) for column in columns]
    least = [
        max((min(display_width(word), _LONGEST_WORD) for cell in column for word in _WORDS.findall(cell)), default=0)
        for column in columns
    ]
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    while excess > 0:
        wide = max(range(len(widths)), key=lambda column: (widths[column] > least[column], widths[column]))
        if widths[wide] <= least[wide]:
            break
        widths[wide] -= 1
        excess -= 1
    return widths


def wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most ``width`` columns, broken between words, or inside a word longer than that.

    Brackets hold together, so that an interval stays on one line.

    >>> wrap("33.3 [14.9, 51.9] at chance", 17)
    ['33.3 [14.9, 51.9]', 'at chance']
    """
    if display_width(text) <= width:
        return [text]
    lines = [""]
    for word in _WORDS.findall(text):
        if lines[-1] and display_width(lines[-1]) + 1 + display_width(word) <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for char in word:
            if display_width(lines[-1]) + display_width(char) > width:
                lines.append("")
            lines[-1] += char
    return lines[1:] if len(lines) > 1 and not lines[0] else lines


def score_cells(report: ReportInput) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the score table: one row per condition, one column per protocol."""
    shown = [p for p in protocols(report) if any(s.protocol == p for scores in report.results.values() for s in scores)]
    rows = []
    for name, scores in report.results.items():
        cells = [name]
        for protocol in shown:
            score = next((score for score in scores if score.protocol == protocol), None)
            text = "" if score is None else f"{points(score.score.value)} {interval(score.score)}"
            if score is not None and score.at_chance:
                text += f" {t('at chance')}"
            if score is not None and score.provenance.get("limit"):
                text += " " + t("(first {n} questions only)", n=score.provenance["limit"])
            cells.append(text)
        rows.append(cells)
    if rows:
        chances = []
        for protocol in shown:
            known = [s.chance for scores in report.results.values() for s in scores if s.protocol == protocol]
            chances.append(points(known[0]) if known else "")
        rows.append([t("(chance)"), *chances])
    return [t("condition"), *[f"{protocol} %" for protocol in shown]], rows


def comparison_cells(report: ReportInput) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the comparison table."""
    header = [t("protocol"), t("comparison"), t("difference"), t("p (Holm)"), t("seeds"), t("verdict")]
    rows = [
        [
            c.protocol,
            t("{b} against {a}", b=c.b, a=c.a),
            f"{signed(c.difference.value)} {interval(c.difference)}",
            p_value(c.p_value if c.p_value_holm is None else c.p_value_holm),
            str(c.num_seeds),
            t(verdict_of(report, c)),
        ]
        for c in report.comparisons
    ]
    return header, rows


def render_terminal(report: ReportInput, *, colour: bool | None = None) -> str:
    """Verdict, score table and comparisons as plain text.

    Args:
        colour: None follows the terminal and NO_COLOR.

    Raises:
        ProvenanceError: a score does not say where it comes from.
    """
    require_provenance(report.results)
    colour = use_colour() if colour is None else colour
    messages = verdicts(report)
    parts = [
        paint(message.text(), message.tone if message.tone != "plain" else "bold", colour) for message in messages[:1]
    ]
    parts += [message.text() for message in messages[1:]]
    header, rows = score_cells(report)
    if rows:
        parts += ["", render_table(header, rows)]
    header, rows = comparison_cells(report)
    if rows:
        parts += ["", render_table(header, rows, "<<<>><")]
    for data in report.datasets:
        if data.filter_quality:
            parts += ["", render_quality(data.name, data.filter_quality)]
    return "\n".join(parts)


def render_quality(name: str, classes: Sequence[FilterQuality]) -> str:
    """What a recipe did to each class of known noise, and its precision and recall."""
    header = [t("noise"), t("rows"), t("dropped"), t("repaired"), t("kept")]
    rows = [[c.noise, *(str(n) for n in (c.total, c.dropped, c.repaired, c.kept))] for c in classes]
    sentence, values = precision_and_recall(classes)
    lines = [t("filters of {name} against the known noise", name=name), render_table(header, rows, "<>>>>")]
    return "\n".join([*lines, t(sentence, **values)])
