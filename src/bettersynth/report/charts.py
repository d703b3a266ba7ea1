"""Charts as inline SVG. Lengths are percentages, so a chart fits a phone without shrinking its text.

Nothing from outside is drawn as markup: labels are escaped, numbers are formatted here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bettersynth.core.record import EvalResult, Interval
from bettersynth.report.text import both, escape, number

NUM_COLOURS = 8
MAX_POINTS = 300
_STRIP_PX = 28


def nice_top(value: float) -> float:
    """The end of an axis that starts at 0: the smallest round number not below ``value``."""
    if value <= 0 or math.isnan(value) or math.isinf(value):
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(
        (step * unit for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * unit >= value * 0.9999), 10 * unit
    )


def _percent(value: float, low: float, high: float) -> str:
    position = 0.0 if high <= low else 100 * (min(max(value, low), high) - low) / (high - low)
    return f"{position:.2f}%"


def _line(x1: str, x2: str, y1: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}"/>'


def score_strip(result: EvalResult, top: float, colour: int) -> str:
    """One row of a score chart: interval, mean, one dot per seed, and the chance level as a dashed line.

    Args:
        top: percentage at the right end of the axis.
        colour: number of the condition's colour, 1 to 8; 0 is grey.
    """
    middle = _STRIP_PX / 2
    value, low, high = (_percent(v, 0, top) for v in (result.score.value, result.score.low, result.score.high))
    chance = _percent(result.chance, 0, top)
    parts = [_grid(top), _line(chance, chance, 0, _STRIP_PX, "chance")]
    parts.append(_line("0%", value, middle, middle, f"stem c{0 if result.at_chance else colour}"))
    parts += [f'<circle class="seed" cx="{_percent(v, 0, top)}" cy="{middle}" r="2.5"/>' for v in result.per_seed]
    kind = f"whisker c{0 if result.at_chance else colour}"
    parts += [_line(low, high, middle, middle, kind)]
    parts += [_line(end, end, middle - 5, middle + 5, kind) for end in (low, high)]
    dot = "hollow" if result.at_chance else "dot"
    parts.append(f'<circle class="{dot} c{0 if result.at_chance else colour}" cx="{value}" cy="{middle}" r="5"/>')
    return f'<svg class="strip" height="{_STRIP_PX}" aria-hidden="true">{"".join(parts)}</svg>'


def _grid(top: float, low: float = 0.0) -> str:
    ticks = axis_ticks(top, low)
    return "".join(_line(_percent(tick, low, top), _percent(tick, low, top), 0, _STRIP_PX, "grid") for tick in ticks)


def axis_ticks(top: float, low: float = 0.0) -> list[float]:
    """Five evenly spaced marks from ``low`` to ``top``."""
    return [low + (top - low) * part / 4 for part in range(5)]


def axis_row(top: float, low: float = 0.0, unit: str = "") -> str:
    """The numbers under a strip chart."""
    marks = []
    for tick in axis_ticks(top, low):
        anchor = "start" if tick == low else "end" if tick == top else "middle"
        label = number(round(tick, 2)).replace("-", "\N{MINUS SIGN}") + (unit if tick == top else "")
        marks.append(f'<text class="tick" x="{_percent(tick, low, top)}" y="12" text-anchor="{anchor}">{label}</text>')
    return f'<svg class="strip axis" height="16" aria-hidden="true">{"".join(marks)}</svg>'


def difference_strip(difference: Interval, reach: float, tone: str) -> str:
    """A difference with its interval on an axis from ``-reach`` to ``+reach`` points; the middle line is zero."""
    middle = _STRIP_PX / 2
    value, low, high = (_percent(v, -reach, reach) for v in (difference.value, difference.low, difference.high))
    parts = [
        _grid(reach, -reach),
        _line("50%", "50%", 0, _STRIP_PX, "zero"),
        _line(low, high, middle, middle, "whisker " + tone),
    ]
    parts += [_line(end, end, middle - 5, middle + 5, "whisker " + tone) for end in (low, high)]
    parts.append(f'<circle class="dot {tone}" cx="{value}" cy="{middle}" r="5"/>')
    return f'<svg class="strip" height="{_STRIP_PX}" aria-hidden="true">{"".join(parts)}</svg>'


def stacked_bar(parts: Sequence[tuple[str, float]], whole: float) -> str:
    """A bar of consecutive parts; each is (CSS class, amount)."""
    drawn, start = [], 0.0
    for kind, amount in parts:
        if amount > 0 and whole > 0:
            drawn.append(
                f'<rect class="{kind}" x="{100 * start / whole:.2f}%" width="{100 * amount / whole:.2f}%" height="14"/>'
            )
            start += amount
    return f'<svg class="bar" height="14" aria-hidden="true">{"".join(drawn)}</svg>'


def _plot(width: int, height_px: int, body: str) -> str:
    """A drawing area of ``width`` x 100 units stretched to the available width."""
    box = f'viewBox="0 0 {width} 100" preserveAspectRatio="none" height="{height_px}"'
    return f'<svg class="plot" {box} aria-hidden="true">{body}</svg>'


def histogram(name: str, data: Mapping[str, Any]) -> str:
    """Counts before (grey) and after (coloured) over the same bins, as one small figure.

    Args:
        data: ``edges`` (n + 1), ``before`` (n) and ``after`` (n) counts; ``after`` may be missing.
    """
    edges = [float(edge) for edge in data.get("edges", ())]
    before = [float(count) for count in data.get("before", ())]
    after = [float(count) for count in data.get("after", ())]
    top = max([*before, *after, 1.0])
    bins = max(len(before), len(after), 1)
    bars = []
    for kind, counts in (("before", before), ("after", after)):
        for position, count in enumerate(counts):
            height = 100 * count / top
            place = f'x="{position + 0.04:.2f}" y="{100 - height:.2f}" width="0.92" height="{height:.2f}"'
            bars.append(f'<rect class="{kind}" {place}/>')
    low, high = (number(edges[0]), number(edges[-1])) if edges else ("", "")
    middle = number(edges[len(edges) // 2]) if len(edges) > 2 else ""
    return (
        f'<figure class="hist"><figcaption>{escape(name)}</figcaption>'
        f"{_plot(bins, 96, ''.join(bars))}"
        f'<div class="ticks"><span>{low}</span><span>{middle}</span><span>{high}</span></div>'
        f'<p class="small">{both("highest bar: {n} rows", n=number(top))}</p></figure>'
    )


def _thin(series: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = -(-len(series) // MAX_POINTS)
    kept = list(series[::stride]) if stride > 1 else list(series)
    if series and kept[-1] != series[-1]:
        kept.append(series[-1])
    return kept


def curves(title: str, lines: Sequence[tuple[str, int, Sequence[tuple[float, float]]]], *, from_zero: bool) -> str:
    """Several lines over optimizer steps in one figure.

    Args:
        title: HTML of the caption.
        lines: (name, colour number, points (step, value)); points that are not finite are left out.
        from_zero: whether the vertical axis starts at zero.
    """
    finite = [
        (name, colour, [(x, y) for x, y in series if math.isfinite(x) and math.isfinite(y)])
        for name, colour, series in lines
    ]
    values = [y for _, _, series in finite for _, y in series]
    steps = [x for _, _, series in finite for x, _ in series]
    if not values:
        return ""
    low, high = (0.0, max(values)) if from_zero else (min(values), max(values))
    high = high if high > low else low + (abs(low) or 1.0)
    first, last = min(steps), max(steps)
    paths = []
    for _, colour, series in finite:
        width = (last - first) or 1.0
        drawn = " ".join(
            f"{100 * (x - first) / width:.2f},{100 - 100 * (y - low) / (high - low):.2f}"
            for x, y in _thin(sorted(series))
        )
        paths.append(f'<polyline class="c{colour}" points="{drawn}"/>')
    grid = "".join(f'<line class="grid" x1="0" x2="100" y1="{y}" y2="{y}"/>' for y in (0, 25, 50, 75, 100))
    labels = "".join(f"<span>{value:.3g}</span>" for value in (high, (low + high) / 2, low))
    return (
        f'<figure class="curve"><figcaption>{title}</figcaption><div class="frame"><div class="yaxis">{labels}</div>'
        f"{_plot(100, 170, grid + ''.join(paths))}</div>"
        f'<div class="ticks inset"><span>{number(first)}</span><span>{both("optimizer step")}</span>'
        f"<span>{number(last)}</span></div>"
        "</figure>"
    )


def legend(names: Sequence[tuple[str, int]]) -> str:
    """Names with their colours."""
    items = "".join(f'<li><i class="swatch c{colour}"></i>{escape(name)}</li>' for name, colour in names)
    return f'<ul class="legend">{items}</ul>'
