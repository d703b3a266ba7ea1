"""Make a row of each figure of a LaTeX paper: pictures, caption, and the paragraphs that point to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._latex_figures import Citations, figures_of
from bettersynth.ops.base import IMAGES, TEXT, Batch, Generator, Made, Track, with_column

_LISTS = pa.list_(pa.string())


@dataclass(frozen=True, kw_only=True, slots=True)
class LatexFigureContextExtractorMapper(Generator):
    """As in Data-Juicer: one row per figure or subfigure with pictures; a paper without any is dropped.

    The row's pictures become the figure's, as the source writes their paths. ``\\input`` is not followed: put the parts
    of a paper together first.

    Args:
        citation_commands: commands that point to a label; by default ``ref``, ``cref``, ``Cref`` and ``autoref``.
        paragraph_separator: what stands between paragraphs.
        caption_key, label_key, context_key, parent_caption_key, parent_label_key: fields for the caption, the label,
            the paragraphs, and the caption and label of the figure that a subfigure is part of.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = (IMAGES,)
    track: ClassVar[Track] = "open"

    citation_commands: tuple[str, ...] | None = None
    paragraph_separator: str = "\n\n"
    caption_key: str = "caption"
    label_key: str = "label"
    context_key: str = "citing_paragraphs"
    parent_caption_key: str = "parent_caption"
    parent_label_key: str = "parent_label"

    def _keys(self) -> tuple[str, ...]:
        return (self.caption_key, self.label_key, self.parent_caption_key, self.parent_label_key, self.context_key)

    def check(self) -> None:
        """Five fields of their own, and something between paragraphs."""
        keys = self._keys()
        if len(set(keys)) < len(keys) or not all(keys) or {"id", TEXT, IMAGES} & set(keys):
            raise ValueError(f"the fields must have five different names of their own, not {', '.join(keys)}")
        if not self.paragraph_separator:
            raise ValueError("paragraph_separator must not be empty")

    def adds(self) -> tuple[str, ...]:
        """Pictures and the five fields."""
        return (*self.writes, *self._keys())

    def make(self, batch: Batch, ctx: OpContext) -> Made:
        """The figures of each paper; the first keeps the row's key."""
        commands = self.citation_commands
        citations = Citations(
            ("ref", "cref", "Cref", "autoref") if commands is None else commands, self.paragraph_separator
        )
        papers = [figures_of(text, citations) for text in batch.column(TEXT).to_pylist()]
        source = np.repeat(np.arange(len(papers)), [len(found) for found in papers]).astype(np.int64)
        is_child = np.ones(len(source), bool)
        is_child[np.unique(source, return_index=True)[1]] = False
        figures = [figure for found in papers for figure in found]
        made = with_column(
            batch.take(pa.array(source)), IMAGES, pa.array([list(figure.pictures) for figure in figures], _LISTS)
        )
        texts = [(f.caption, f.label, f.parent_caption, f.parent_label) for f in figures]
        for place, key in enumerate(self._keys()[:-1]):
            made = with_column(made, key, pa.array([values[place] for values in texts], pa.string()))
        made = with_column(made, self.context_key, pa.array([list(figure.citing) for figure in figures], _LISTS))
        return Made(made, source, is_child)
