"""Note the keywords, things and relations that a caption names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._text_facts import keywords, things_and_relations
from bettersynth.ops.base import STATS, TEXT, Batch, Mapper, with_column


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionFactsMapper(Mapper):
    """Lists of texts in stats, by rules for English captions and without a model (ours).

    ``keywords``: the weightiest phrases. ``entities``: each thing that is named, with its adjectives. ``relations``:
    ``red dog | sitting on | grass``. Data-Juicer's operators of this kind ask a language model.

    Args:
        max_keywords: most keywords per text.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ("stats.keywords", "stats.entities", "stats.relations")

    max_keywords: int = 5

    def check(self) -> None:
        """At least one keyword."""
        if self.max_keywords < 1:
            raise ValueError("max_keywords must be at least 1")

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """The batch with three more columns."""
        found: dict[str, list[list[str]]] = {name: [] for name in self.writes}
        for text in batch.column(TEXT).to_pylist():
            bare = ctx.tokens.strip(text)
            things, relations = things_and_relations(bare)
            found["stats.keywords"].append(keywords(bare, self.max_keywords))
            found["stats.entities"].append(list(dict.fromkeys(thing.phrase for thing in things)))
            found["stats.relations"].append([f"{r.left.phrase} | {r.words} | {r.right.phrase}" for r in relations])
        for name in self.writes:
            assert name.startswith(STATS)  # the class fact above
            batch = with_column(batch, name, pa.array(found[name], pa.list_(pa.string())))
        return batch
