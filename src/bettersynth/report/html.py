"""The report page: one HTML file that needs nothing else, neither a network nor scripts.

Both languages are in the page; two radio buttons and a style sheet switch between them. Light or dark follows the
reader's system. A content security policy forbids the page to load or run anything.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from bettersynth.core.lang import language, translate
from bettersynth.core.record import ReportInput
from bettersynth.report.data_section import data_section
from bettersynth.report.pictures import PictureBook, Thumbnailer
from bettersynth.report.run_sections import cost_section, origin_section, training_section
from bettersynth.report.score_section import comparison_section, score_section
from bettersynth.report.text import both, escape
from bettersynth.report.verdict import require_provenance, verdicts

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render_html(report: ReportInput, *, root: Path, thumbnail: Thumbnailer | None = None) -> str:
    """The whole page as text.

    Args:
        root: folder that relative picture paths start from.
        thumbnail: makes a small copy of a picture file.

    Raises:
        ProvenanceError: a score does not say where it comes from.
    """
    require_provenance(report.results)
    book = PictureBook(root, thumbnail)
    sections = [
        ("scores", both("Scores"), score_section(report)),
        ("comparisons", both("Comparisons"), comparison_section(report)),
        ("data", both("Data"), data_section(report, book)),
        ("training", both("Training"), training_section(report)),
        ("cost", both("Cost"), cost_section(report)),
        ("origin", both("Origin"), origin_section(report)),
    ]
    shown = [(anchor, title, body) for anchor, title, body in sections if body]
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in shown)
    bodies = "".join(f'<section id="{anchor}"><h2>{title}</h2>{body}</section>' for anchor, title, body in shown)
    return page_frame(report.title, _verdict(report), f'<nav class="contents">{links}</nav>{bodies}')


def page_frame(title: str, lead: str, content: str) -> str:
    """A whole page around its parts.

    Args:
        title: plain text.
        lead, content: HTML below the heading.
    """
    lang = language()
    style = resources.files("bettersynth.report").joinpath("page.css").read_text(encoding="utf-8")
    chinese = translate("Chinese", "zh")
    picked = {code: " checked" if code == lang else "" for code in ("en", "zh")}
    return f"""<!doctype html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<input class="switch" type="radio" name="lang" id="lang-en" aria-label="English"{picked["en"]}>
<input class="switch" type="radio" name="lang" id="lang-zh" aria-label="{chinese}"{picked["zh"]}>
<main>
<header>
<div class="topline"><span class="brand">bettersynth</span>
<span class="languages"><label for="lang-en">English</label><label for="lang-zh">{chinese}</label></span></div>
<h1>{escape(title)}</h1>
{lead}
</header>
{content}
<footer><p>{both("Made by bettersynth. This page loads nothing from a network and runs no script.")}</p></footer>
</main>
</body>
</html>
"""


def _verdict(report: ReportInput) -> str:
    messages = verdicts(report)
    head, rest = messages[0], messages[1:]
    parts = [f'<p class="verdict {head.tone}">{head.html()}</p>']
    if rest:
        items = "".join(f'<li class="{message.tone}">{message.html()}</li>' for message in rest[:6])
        parts.append(f'<ul class="more">{items}</ul>')
    if len(rest) > 6:
        more = both("{n} more sentences are left out; the tables have them all.", n=len(rest) - 6)
        parts.append(f'<p class="small">{more}</p>')
    if report.is_demo:
        text = both("Demo: tiny models in a procedural world. These figures are no challenge result.")
        parts.append(f'<p class="badge">{text}</p>')
    return "".join(parts)
