"""What augmentations of texts share: rows made from rows, seeded by their keys, special tokens left alone."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops.base import TEXT, Batch, Generator, Made, Track, row_keys, with_column

_VOWELS = "aeiou"


@dataclass(frozen=True, kw_only=True, slots=True)
class TextAugmenter(Generator):
    """Adds rows whose text is another wording of a row's text; pictures and other fields are copied.

    Each row's variants depend on the run's seed and the row's key alone.

    Args:
        aug_num: most new rows per row.
        keep_original_sample: whether the row itself stays; it does anyway when nothing could be made of it.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = (TEXT,)
    track: ClassVar[Track] = "open"

    aug_num: int = 1
    keep_original_sample: bool = True

    def check(self) -> None:
        """At least one new row."""
        if self.aug_num < 1:
            raise ValueError("aug_num must be at least 1")

    def make(self, batch: Batch, ctx: OpContext) -> Made:
        """Originals and their variants, ordered by source."""
        tokens = ctx.tokens.pattern()
        rows: list[tuple[int, bool, str]] = []
        for row, (text, key) in enumerate(zip(batch.column(TEXT).to_pylist(), row_keys(batch), strict=True)):
            found = self.variants(text, ctx.generator(self.name, key), tokens)
            if self.keeps(found):
                rows.append((row, False, text))
            rows.extend((row, True, variant) for variant in found)
        source = np.array([row for row, _, _ in rows], np.int64)
        made = batch.take(pa.array(source, pa.int64()))
        made = with_column(made, TEXT, pa.array([text for _, _, text in rows], pa.string()))
        return Made(made, source, np.array([is_child for _, is_child, _ in rows], bool))

    def keeps(self, found: list[str]) -> bool:
        """Whether the original row stays beside its variants."""
        return self.keep_original_sample or not found

    def variants(self, text: str, draw: random.Random, tokens: re.Pattern[str]) -> list[str]:
        """New texts: up to ``aug_num`` different ones, none of them the text itself."""
        found: list[str] = []
        for _ in range(4 * self.aug_num):  # a draw may give the same text again
            new = outside_tokens(text, tokens, lambda part: self.rewrite(part, draw))
            if new != text and new not in found:
                found.append(new)
            if len(found) == self.aug_num:
                break
        return found

    def rewrite(self, part: str, draw: random.Random) -> str:
        """One other wording of a stretch of text without special tokens."""
        raise NotImplementedError


def outside_tokens(text: str, tokens: re.Pattern[str], rewrite: Callable[[str], str]) -> str:
    """The text with the stretches between special tokens rewritten, white space at their ends kept."""
    out, at = [], 0
    for match in (*tokens.finditer(text), None):
        part = text[at : match.start() if match else len(text)]
        bare = part.strip()
        if bare:
            start = part.index(bare)
            part = part[:start] + rewrite(bare) + part[start + len(bare) :]
        out.append(part)
        if match:
            out.append(match.group())
            at = match.end()
    return "".join(out)


def with_case_of(new: str, old: str) -> str:
    """A replacement that begins with a capital where the old word does."""
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def mend_articles(text: str) -> str:
    """``a`` before a vowel becomes ``an`` and the other way round, by spelling alone.

    >>> mend_articles("a old dog and an big cat")
    'an old dog and a big cat'
    """

    def mend(match: re.Match[str]) -> str:
        article, space, word = match.groups()
        if article.isupper() and len(article) == 2:
            return match.group()
        vowel = word[0].lower() in _VOWELS and not re.match(r"(?i)(uni|use|usu|eu|one\b|once)", word)
        vowel = vowel or re.match(r"(?i)(hour|honest|honou?r|heir)", word) is not None
        return article[0] + ("n" if vowel else "") + space + word

    return re.sub(r"\b([Aa]n?)(\s+)([a-z][\w-]*)", mend, text)
