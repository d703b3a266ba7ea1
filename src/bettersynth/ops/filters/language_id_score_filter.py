"""Keep texts that are surely written in given languages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT, Batch, Filter, Mask, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageIdScoreFilter(Filter):
    """Language and confidence of each text, by a local fastText model as in Data-Juicer.

    Args:
        lang: language code or codes to keep; all when empty.
        min_score: smallest confidence, 0 to 1.
        min_closed_interval, reversed_range: leave the bound itself out; keep what is less sure than it.
        model: fastText's ``lid.176.bin``, or ``builtin`` for our own rough guess by script and common words.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.lang", "stats.lang_score")
    models: ClassVar[tuple[str, ...]] = ("model",)
    keep_params: ClassVar[tuple[str, ...]] = ("lang", "min_score", "min_closed_interval", "reversed_range")

    lang: str | tuple[str, ...] = ""
    min_score: float = 0.8
    model: str | None = None
    min_closed_interval: bool = True
    reversed_range: bool = False

    def check(self) -> None:
        """A model is needed; nothing is downloaded."""
        if not self.model:
            raise ValueError("model needs fastText's lid.176.bin, or 'builtin' for a rough guess without a model")

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """``lang`` and ``lang_score``."""
        from bettersynth.infer.text_models import load_languages

        assert self.model is not None  # check() refuses that
        found = load_languages(self.model).identify(batch.column(TEXT).to_pylist())
        languages, scores = [language for language, _ in found], [score for _, score in found]
        return {"lang": pa.array(languages, pa.string()), "lang_score": pa.array(scores, pa.float64())}

    def keep(self, stats: Stats) -> Mask:
        """Sure enough, and in one of the languages."""
        scores = np.asarray(stats["lang_score"].to_numpy(zero_copy_only=False))
        # Reversing flips the end first, so that "below" includes the bound by default.
        sure: Mask = scores >= self.min_score
        if self.min_closed_interval == self.reversed_range:
            sure = scores > self.min_score
        return (~sure if self.reversed_range else sure) & self._listed(stats)

    def _listed(self, stats: Stats) -> Mask:
        wanted = {self.lang} - {""} if isinstance(self.lang, str) else set(self.lang)
        found = stats["lang"].to_pylist()
        return np.array([not wanted or language in wanted for language in found], bool)

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """Another language, or too little confidence."""
        listed = self._listed(stats)
        unsure = f"lang_score {'above' if self.reversed_range else 'below'} min_score"
        return [unsure if listed[row] else "lang not in lang" for row in dropped.tolist()]
