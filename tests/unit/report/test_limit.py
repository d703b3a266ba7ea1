"""A score of only the first questions says so wherever it is shown."""

from __future__ import annotations

from dataclasses import replace

from bettersynth.core.record import EvalResult, Interval, ReportInput
from bettersynth.report.markdown import render_markdown
from bettersynth.report.score_section import score_section
from bettersynth.report.terminal import render_terminal

_KEYS = ("checkpoint", "prompt", "decoding", "protocol", "data", "predictions")
_WHOLE = EvalResult(
    "textvqa",
    "textvqa-noocr",
    Interval(40.0, 30.0, 50.0),
    8,
    12.5,
    "blind",
    False,
    provenance=dict.fromkeys(_KEYS, "x"),
)


def test_a_limited_score_is_marked_on_terminal_markdown_and_page():
    limited = replace(_WHOLE, provenance={**_WHOLE.provenance, "limit": "8"})
    for score, is_marked in ((_WHOLE, False), (limited, True)):
        report = ReportInput("", "", is_demo=False, results={"m": (score,)})
        assert ("first 8 questions only" in render_terminal(report)) is is_marked
        assert ("first 8 questions only" in render_markdown(report)) is is_marked
        assert ("Only the first 8 questions" in score_section(report)) is is_marked
