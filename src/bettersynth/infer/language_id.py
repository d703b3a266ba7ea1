"""A small guess at the language of a text without any model file: by script, and by short common words.

It is meant for sorting captions roughly where no fastText model is at hand, and is only used when asked for by name
(``builtin``). It knows one language per script, a few more by their own letters, and twelve languages in Latin script
by the letter triples of their commonest words. Short, mixed and rare-language texts are often wrong; the confidence is
a share of evidence, not a probability. Texts without letters get ``und`` with confidence 0.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

_BY_SCRIPT = {
    "CJK": "zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CYRILLIC": "ru",
    "ARABIC": "ar",
    "HEBREW": "he",
    "GREEK": "el",
    "THAI": "th",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "TELUGU": "te",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "KHMER": "km",
    "LAO": "lo",
    "MYANMAR": "my",
    "ETHIOPIC": "am",
    "TIBETAN": "bo",
    "MONGOLIAN": "mn",
    "LATIN": "",
}
# Letters that tell a language from the commoner one of its script.
_OWN_LETTERS = {"ru": {"uk": "іїєґ", "bg": "", "sr": "ђћџј"}, "ar": {"fa": "پچژگی", "ur": "ٹڈڑےں"}}
_WORDS = {
    "en": "the of and a to in is with on that it for are this at by from an two man woman people sitting standing",
    "de": "der die und das ist ein eine mit auf von den in zu nicht im sich dem des für auch an zwei ich es",
    "fr": "le la les de des et un une est dans sur avec du en que qui pour pas il au ce deux sont ne à",
    "es": "el la los de y en un una que con es por las del se para al lo su como está dos no más son",
    "it": "il la di e che un una è in con per del le sono della i non si da al gli due nel ha alla",
    "pt": "o a de e que um uma do da em com os não as no na por para é dos se mais ao dois são",
    "nl": "de het een van en in is op te dat met die voor niet zijn er aan om naar bij ook twee ik",
    "sv": "och det att en som på är av för med ett den till i inte har om två de var jag sig",
    "pl": "i w na z nie się jest do to że a o jak dla od po przez dwa są ma przy czy ten",
    "tr": "bir ve bu da de için ile çok olan o gibi var iki daha ne olarak en ama kadar sonra",
    "vi": "và của là một có trong cho không được những người với các trên này hai đang đã khi đến",
    "id": "dan yang di dengan untuk dari ini itu pada adalah ke dua orang sebuah tidak ada dalam oleh akan",
}
_SHARPNESS = 0.6  # evidence per letter triple is far from independent


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    return unicodedata.name(character, "").partition(" ")[0].removeprefix("FULLWIDTH") if character.isalpha() else ""


def _triples(words: Sequence[str]) -> Counter[str]:
    return Counter(f" {word} "[i : i + 3] for word in words for i in range(max(1, len(word))))


@lru_cache(maxsize=1)
def _profiles() -> dict[str, dict[str, float]]:
    """Log probability of letter triples in each language's commonest words, the commoner ones counted more."""
    found = {}
    for language, text in _WORDS.items():
        words = text.split()
        weighted = [word for rank, word in enumerate(words) for _ in range(1 + 6 // (1 + rank // 4))]
        counts = _triples(weighted)
        total = counts.total() + 400
        found[language] = {triple: math.log((n + 0.1) / total) for triple, n in counts.items()} | {
            "": math.log(0.1 / total)
        }
    return found


class BuiltinLanguages:
    """Script first, then letter triples; see the module for what it is good for."""

    def identify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """(language code, share of the evidence) of each text."""
        return [self._one(text.lower()) for text in texts]

    def _one(self, text: str) -> tuple[str, float]:
        scripts = Counter(script for script in map(_script, text) if script in _BY_SCRIPT)
        if not scripts:
            return "und", 0.0
        # Japanese mixes kana with Chinese characters.
        if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * scripts["CJK"]:
            scripts["HIRAGANA"] += scripts.pop("KATAKANA", 0) + scripts.pop("CJK", 0)
        script, count = scripts.most_common(1)[0]
        share = count / scripts.total()
        if script == "LATIN":
            language, confidence = self._latin(text)
            return language, round(share * confidence, 4)
        language = _BY_SCRIPT[script]
        for other, letters in _OWN_LETTERS.get(language, {}).items():
            if letters and sum(text.count(letter) for letter in letters) > 0.01 * count:
                return other, round(share, 4)
        return language, round(share, 4)

    def _latin(self, text: str) -> tuple[str, float]:
        words = "".join(character if character.isalpha() else " " for character in text).split()
        triples = _triples(words)
        scores = {
            language: _SHARPNESS * sum(n * profile.get(triple, profile[""]) for triple, n in triples.items())
            for language, profile in _profiles().items()
        }
        best = max(scores, key=lambda language: scores[language])
        return best, 1.0 / sum(math.exp(score - scores[best]) for score in scores.values())
