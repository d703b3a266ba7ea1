"""The terminal's tables."""

from __future__ import annotations

from bettersynth.core.record import FilterQuality
from bettersynth.report.terminal import render_quality


def test_what_filters_did_to_known_noise_is_shown_with_precision_and_recall():
    classes = [FilterQuality("clean", 10, 2, 1, 7), FilterQuality("spam", 10, 6, 3, 1)]
    text = render_quality("mine", classes)
    assert [line.split() for line in text.splitlines()[-2:-1]] == [["spam", "10", "6", "3", "1"]]
    assert "Precision: 75 %" in text and "Recall: 90 %" in text


def test_a_recipe_that_drops_nothing_has_no_precision():
    text = render_quality("raw", [FilterQuality("clean", 10, 0, 0, 10), FilterQuality("spam", 10, 0, 1, 9)])
    assert text.endswith("Precision: no row was dropped. Recall: 10 % of the noise was dropped or repaired.")
