"""Write each sentence of a text on a line of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bettersynth.ops._sentences import load
from bettersynth.ops.base import TextMapper


@dataclass(frozen=True, kw_only=True, slots=True)
class SentenceSplitMapper(TextMapper):
    """By Punkt, as in Data-Juicer, which downloads its parameters; here they lie in a folder or are built in.

    With the same parameters the sentences are the same. The built-in ones know abbreviations only.

    Args:
        lang: English, French, Portuguese or Spanish; which abbreviations are known when ``punkt`` is not given.
        punkt: folder with Punkt parameters, e.g. ``nltk_data/tokenizers/punkt_tab/english``; None for the built-in.
    """

    models: ClassVar[tuple[str, ...]] = ("punkt",)

    lang: Literal["en", "fr", "pt", "es"] = "en"
    punkt: str | None = None

    def check(self) -> None:
        """The folder must hold parameters."""
        load(self.punkt, self.lang)

    def rewrite(self, text: str) -> str:
        """The sentences, joined by newlines."""
        return "\n".join(load(self.punkt, self.lang).sentences(text))
