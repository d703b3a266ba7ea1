"""The terminal's tables."""

from __future__ import annotations

from bettersynth.core.record import FilterQuality
from bettersynth.report.terminal import render_quality


def test_what_filters_did_to_known_noise_is_shown_with_precision_and_recall():
    classes = [FilterQuality("clean", 10, 2, 1, 7), FilterQuality("spam", 10, 6, 3, 1)]
    text = render_quality("mine", classes)
    assert [line.split() for line in text.splitlines()[-2:-1]] == [["spam", "10", "6", "3", "1"]]
    assert "Precision: 75 %" in text and "Recall: 90 %" in text
