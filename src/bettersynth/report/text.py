"""Sentences in two languages, HTML escaping, and how numbers are written."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bettersynth.core.lang import language, translate
from bettersynth.core.record import FilterQuality, Interval

_INTERVAL = re.compile(r"\[([^\[\],<>]{1,12}), ([^\[\],<>]{1,12})\]")


@dataclass(frozen=True, slots=True)
class Message:
    """One translatable sentence: the English template is its key.

    ``tone`` is ``good``, ``bad`` or ``plain`` and only colours the sentence.
    """

    template: str
    values: Mapping[str, object] = field(default_factory=dict)
    tone: str = "plain"

    def text(self, lang: str | None = None) -> str:
        """The sentence as plain text."""
        return translate(self.template, lang or language(), **self.values)

    def html(self) -> str:
        """The sentence in both languages as HTML; the page's switch shows one of them."""
        # An interval is one thing to read, so it is not broken over two lines.
        return _INTERVAL.sub(r"[\1,&nbsp;\2]", both(self.template, **self.values))


def escape(value: object) -> str:
    """Text that came from outside, safe inside an element or a quoted attribute."""
    return html.escape(str(value), quote=True)


def both(template: str, /, **values: object) -> str:
    """The sentence in English and Chinese, values escaped; one span when the two are equal."""
    safe = {name: escape(value) for name, value in values.items()}
    english, chinese = translate(template, "en", **safe), translate(template, "zh", **safe)
    if english == chinese:
        return english
    return f'<span class="en" lang="en">{english}</span><span class="zh" lang="zh">{chinese}</span>'


def points(value: float) -> str:
    """A percentage or a difference of percentages, one decimal: ``41.2``."""
    return "n/a" if math.isnan(value) else f"{value:.1f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """A difference with its sign, one decimal: ``+3.0``."""
    return "n/a" if math.isnan(value) else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def interval(value: Interval) -> str:
    """The ends of an interval: ``[38.1, 44.3]``."""
    return f"[{points(value.low)}, {points(value.high)}]"


def p_value(value: float | None) -> str:
    """A p-value with two significant digits; very small ones as a bound."""
    if value is None or math.isnan(value):
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def number(value: float) -> str:
    """A count or measure in few digits: ``12,345``, ``0.0312``, ``1e-05``."""
    if isinstance(value, bool) or math.isnan(value) or math.isinf(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.3g}"


def seconds(value: float) -> str:
    """A duration: ``0.4 s``, ``2 min 05 s``, ``3 h 20 min``."""
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value: int) -> str:
    """A number of bytes with a binary unit: ``312 MiB``."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def share(part: float, whole: float) -> str:
    """A part of a whole as a percentage without decimals; ``n/a`` of nothing."""
    return "n/a" if not whole else f"{100 * part / whole:.0f} %"


def precision_and_recall(classes: Sequence[FilterQuality]) -> tuple[str, dict[str, str]]:
    """The sentence, and its values: of the dropped rows how many were noise; of the noise how much was dealt with."""
    noise = [item for item in classes if item.noise != "clean"]
    dropped = sum(item.dropped for item in classes)
    recall = share(sum(item.dropped + item.repaired for item in noise), sum(item.total for item in noise))
    if not dropped:
        return _NOTHING_DROPPED, {"recall": recall}
    return _PRECISION_AND_RECALL, {
        "precision": share(sum(item.dropped for item in noise), dropped),
        "recall": recall,
    }


_PRECISION_AND_RECALL = (
    "Precision: {precision} of the dropped rows were noise. Recall: {recall} of the noise was dropped or repaired."
)
_NOTHING_DROPPED = "Precision: no row was dropped. Recall: {recall} of the noise was dropped or repaired."
