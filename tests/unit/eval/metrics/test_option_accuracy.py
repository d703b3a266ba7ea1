from __future__ import annotations

from bettersynth.eval.metrics.option_accuracy import score


def test_only_the_right_letter_counts():
    assert [score(given, "B") for given in ("B", "A", "", "B.")] == [1.0, 0.0, 0.0, 0.0]
