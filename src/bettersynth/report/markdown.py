"""The score and comparison tables as Markdown, for a README."""

from __future__ import annotations

from collections.abc import Sequence

from bettersynth.core.record import ReportInput
from bettersynth.report.terminal import comparison_cells, score_cells
from bettersynth.report.verdict import require_provenance, verdicts

_SPECIAL = str.maketrans({char: f"\\{char}" for char in "\\|`*_<>"} | {"\n": " "})


def escape_markdown(text: str) -> str:
    """Text from outside, so that it neither breaks a table nor becomes markup."""
    return text.translate(_SPECIAL)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table; cells are escaped."""
    lines = ["| " + " | ".join(escape_markdown(cell) for cell in header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(escape_markdown(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def render_markdown(report: ReportInput) -> str:
    """The sentences, the scores and the comparisons.

    Raises:
        ProvenanceError: a score does not say where it comes from.
    """
    require_provenance(report.results)
    parts = ["\n\n".join(escape_markdown(message.text()) for message in verdicts(report))]
    for header, rows in (score_cells(report), comparison_cells(report)):
        if rows:
            parts.append(markdown_table(header, rows))
    if report.command:
        parts.append(f"```\n{report.command.replace('```', '')}\n```")
    return "\n\n".join(parts) + "\n"
