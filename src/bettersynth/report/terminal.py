"""Tables for a terminal: aligned by what the eye sees, Chinese included; readable without colour."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence

from bettersynth.core.lang import t
from bettersynth.core.record import ReportInput
from bettersynth.report.text import interval, p_value, points, signed
from bettersynth.report.verdict import protocols, require_provenance, verdict_of, verdicts

_COLOURS = {"good": "32", "bad": "31", "bold": "1"}


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


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """A plain table with a rule under its header.

    Args:
        align: one of ``<`` and ``>`` per column; missing ones are ``<``.
    """
    sides = align.ljust(len(header), "<")
    widths = [
        max(display_width(row[column]) for row in [list(header), *[list(row) for row in rows]])
        for column in range(len(header))
    ]
    lines = [
        "  ".join(pad(cell, width, side) for cell, width, side in zip(header, widths, sides, strict=True)).rstrip()
    ]
    lines.append("  ".join("-" * width for width in widths))
    for row in rows:
        lines.append(
            "  ".join(pad(cell, width, side) for cell, width, side in zip(row, widths, sides, strict=True)).rstrip()
        )
    return "\n".join(lines)


def score_cells(report: ReportInput) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the score table: one row per condition, one column per protocol."""
    shown = [p for p in protocols(report) if any(s.protocol == p for scores in report.results.values() for s in scores)]
    rows = []
    for name, scores in report.results.items():
        cells = [name]
        for protocol in shown:
            score = next((score for score in scores if score.protocol == protocol), None)
            text = "" if score is None else f"{points(score.score.value)} {interval(score.score)}"
            cells.append(text + (f" {t('at chance')}" if score is not None and score.at_chance else ""))
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
    return "\n".join(parts)
