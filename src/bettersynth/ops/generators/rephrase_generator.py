"""Make rows that say the same in other words, by rules."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from bettersynth.ops._text_augment import TextAugmenter, outside_tokens

_NOUN_PHRASE = r"(?:an?|the|two|three|four|five|six|some|several)(?: [a-z-]+(?<!ing)){1,4}"
_Rules = tuple[tuple[str, tuple[str, ...]], ...]
# (pattern, replacements); tried in a drawn order. Of those that turn a whole sentence round only one is used.
_SHAPES: _Rules = (
    (r"^there (?:is|are) (.+)$", (r"\1", r"this shows \1", r"\1 can be seen")),
    (r"^(?:a|the) (?:photo|picture|image|photograph) of (.+)$", (r"\1", r"this shows \1", r"here is \1")),
    (r"^((?:an?|some) .+)$", (r"there is \1", r"a picture of \1", r"this shows \1")),
    (r"^((?:two|three|four|five|six|several|many) .+)$", (r"there are \1", r"a picture of \1")),
    (r"^(.+) (?:is|are) (sitting|standing|lying|parked|walking|running|playing) (.+)$", (r"\1 \2 \3",)),
    (
        rf"^({_NOUN_PHRASE}) (on|in|under|near|behind|beside) ((?:an?|the) [a-z][a-z ]*)$",
        (r"\2 \3, \1", r"\1 that is \2 \3"),
    ),
    (rf"^({_NOUN_PHRASE}) and ({_NOUN_PHRASE})$", (r"\2 and \1", r"\1 together with \2")),
)
_WORDINGS: _Rules = (
    (r"\bdoes not\b", ("doesn't",)),
    (r"\bdo not\b", ("don't",)),
    (r"\bis not\b", ("isn't",)),
    (r"\bare not\b", ("aren't",)),
    (r"\bdoesn't\b", ("does not",)),
    (r"\bdon't\b", ("do not",)),
    (r"\bisn't\b", ("is not",)),
    (r"\baren't\b", ("are not",)),
    (r"\bit's\b", ("it is",)),
    (r"\bin front of\b", ("before",)),
    (r"\bnext to\b", ("beside",)),
    (r"\bon top of\b", ("on",)),
    (r"\ba lot of\b", ("many", "lots of")),
    (r"\ba number of\b", ("several",)),
    (r"\bmade of (wood|metal|glass|stone|plastic)\b", (r"of \1",)),
)
_COMPILED = [[(re.compile(pattern, re.IGNORECASE), found) for pattern, found in kind] for kind in (_SHAPES, _WORDINGS)]
_SENTENCE = re.compile(r"[^.!?;\n]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class RephraseGenerator(TextAugmenter):
    """Rules turn sentences of captions round, put other words before them, and write contractions out (ours).

    Args:
        max_rules: most rules that change one sentence; at most one of them changes its shape.
    """

    max_rules: int = 2

    def check(self) -> None:
        """At least one rule."""
        TextAugmenter.check(self)
        if self.max_rules < 1:
            raise ValueError("max_rules must be at least 1")

    def variants(self, text: str, draw: random.Random, tokens: re.Pattern[str]) -> list[str]:
        """New texts; none at once where no rule fits, since a rule that fits changes the text whatever is drawn."""
        fixed = random.Random(0)
        if outside_tokens(text, tokens, lambda part: self.rewrite(part, fixed)) == text:
            return []
        return TextAugmenter.variants(self, text, draw, tokens)

    def rewrite(self, part: str, draw: random.Random) -> str:
        """Every sentence put otherwise where a rule fits."""
        return _SENTENCE.sub(lambda match: self._sentence(match.group(), draw), part)

    def _sentence(self, sentence: str, draw: random.Random) -> str:
        bare = sentence.strip()
        if not bare:
            return sentence
        capital = (bare[0].isupper() and not bare.split()[0].isupper()) or bare[:2] == "A "
        new, used = bare[0].lower() + bare[1:] if capital else bare, 0
        for kind, most in zip(_COMPILED, (1, self.max_rules), strict=True):
            for pattern, replacements in draw.sample(kind, len(kind)):
                if used == most:
                    break
                changed = pattern.sub(draw.choice(replacements), new, count=1)
                used += changed != new
                new = changed
        if not used:
            return sentence
        new = new[:1].upper() + new[1:] if capital else new
        start = sentence.index(bare)
        return sentence[:start] + new + sentence[start + len(bare) :]
