"""Write a report: the page, the Markdown tables, and a manifest."""

from __future__ import annotations

from pathlib import Path

from bettersynth.core.artifact import Artifact, write_atomic, write_manifest
from bettersynth.core.record import ReportInput
from bettersynth.report.html import render_html
from bettersynth.report.markdown import render_markdown
from bettersynth.report.pictures import Thumbnailer

PAGE = "report.html"
TABLES = "report.md"


def build_report(
    report: ReportInput, out: Path, *, root: Path | None = None, thumbnail: Thumbnailer | None = None
) -> Artifact:
    """Write ``report.html`` and ``report.md`` into a folder and finish it with a manifest.

    Args:
        report: everything that is shown; nothing is computed here.
        out: the report's folder.
        root: folder that relative picture paths start from; the current folder by default.
        thumbnail: makes small copies of pictures, e.g. ``bettersynth.media.thumbnail.thumbnail``; without one,
            pictures up to 64 kB are embedded as they are.

    Raises:
        ProvenanceError: a score does not say where it comes from; nothing is written.
        DataError: the folder cannot be written.
    """
    page = render_html(report, root=root or Path.cwd(), thumbnail=thumbnail)
    tables = render_markdown(report)
    write_atomic(out / PAGE, page.encode())
    write_atomic(out / TABLES, tables.encode())
    facts = {"title": report.title, "is_demo": report.is_demo, "conditions": sorted(report.results)}
    return write_manifest(
        out, kind="report", facts=facts, files=[PAGE, TABLES], parents=report.digests, run={"command": report.command}
    )
