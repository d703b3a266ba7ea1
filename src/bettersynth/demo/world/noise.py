"""Known faults of web pairs, each a seeded function of a clean pair, with its class name as hidden label.

`POOL_MIX` states the shares of the demo's seed pool, `BASE_MIX` the (milder, different) noise on which the tiny
scorer and captioner were trained. Texts of spam and vague captions differ between the two.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from bettersynth.demo.world.language import caption
from bettersynth.demo.world.scene import Scene, sample_scene
from bettersynth.demo.world.vocab import Vocabulary

POOL_MIX: dict[str, float] = {
    "clean": 0.34,
    "mismatched": 0.22,
    "vague": 0.11,
    "wrong_text": 0.10,
    "mojibake": 0.06,
    "html": 0.04,
    "spam": 0.05,
    "too_long": 0.02,
    "duplicate": 0.03,
    "near_duplicate": 0.03,
}
"""Share of every quality class in the seed pool (sums to one)."""

BASE_MIX: dict[str, float] = {"clean": 0.82, "mismatched": 0.08, "wrong_text": 0.05, "vague": 0.05}
"""Noise in the captions that scorer and captioner learned from."""

NOISE_CLASSES = tuple(POOL_MIX)
REPAIRABLE = ("mojibake", "html")
"""Classes whose true caption a text cleaner can restore without looking at the picture."""

_VAGUE_PARTS = {
    "eval": (
        ("a nice", "some", "a lovely", "my favorite", "another random", "one more", "an untitled"),
        ("picture", "photo", "image", "scene", "view", "shot"),
        ("", "of some things", "from last week", "of the day", "with a few objects", "for my friends", "so far"),
    ),
    "base": (
        ("a", "an old", "just a", "the first", "our"),
        ("picture", "snapshot", "image", "capture"),
        ("", "of stuff", "that i found", "without description", "of something nice"),
    ),
}
_SPAM_STARTS = (
    "buy now and save 50 % on all orders",
    "click here to see more hot deals",
    "free shipping on every item this week only",
    "subscribe to our newsletter for great offers",
    "best price guaranteed order today",
)
_SPAM_ENDS = (
    "visit www.best-deals.example for more",
    "all rights reserved terms apply",
    "limited stock click click click",
    "share like and follow us",
    "call 555 0100 now",
)
_BOILERPLATE = (
    "copyright all rights reserved image may be subject to copyright",
    "stock photo id download royalty free vector illustration",
    "loading please wait enable javascript to view this image",
    "this image has been removed or is no longer available",
)
_TAGS = ("p", "b", "span", "div")
_FILLERS = (
    "this picture was taken during a long trip that we made with friends",
    "after many hours on the road everyone was tired but very happy",
    "if you want to know more about the trip read the whole story on our page",
    "the weather was fine and the food was great and we would go again",
    "we used an old camera that my uncle gave me many years ago",
    "the next day we went on to another place which was even better",
    "please leave a comment below and tell us what you think about it",
    "there are more pictures in the album which my sister will post later",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture's scene, the text that goes with it, the hidden quality class, and the pair that it repeats, if any."""

    scene: Scene
    text: str
    noise: str
    source: Pair | None = None


def draw_class(mix: dict[str, float], rng: random.Random) -> str:
    """One class name drawn by the shares of `mix`."""
    return rng.choices(list(mix), list(mix.values()))[0]


def make_pair(noise: str, vocab: Vocabulary, rng: random.Random) -> Pair:
    """A fresh pair of one quality class (not for the duplicate classes, which need an earlier pair).

    Classes: clean; mismatched (a true caption of another picture); vague; wrong_text (the sign is misread as
    another word, all else true; scenes without sign are redrawn); mojibake and html (the true caption, damaged but
    repairable); spam (advertising or boilerplate); too_long (a true caption buried in a travel story).
    """
    scene = sample_scene(rng, vocab, min_signs=1 if noise == "wrong_text" else 0)
    return Pair(scene, damaged_text(scene, noise, vocab, rng), noise)


def damaged_text(scene: Scene, noise: str, vocab: Vocabulary, rng: random.Random) -> str:
    """The text of a pair of class `noise` for a given scene."""
    text = caption(scene, rng)
    if noise == "mismatched":
        return caption(_different_scene(scene, vocab, rng), rng)
    if noise == "vague":
        return " ".join(rng.choice(part) for part in _VAGUE_PARTS[vocab.name]).strip()
    if noise == "wrong_text":
        return _wrong_text(scene, text, vocab, rng)
    if noise == "mojibake":
        return mojibake(text, rng)
    if noise == "html":
        return html(text, rng)
    if noise == "spam":
        return _spam(rng)
    if noise == "too_long":
        fillers = rng.sample(_FILLERS, 5)
        return " . ".join([*fillers[:2], text, *fillers[2:]])
    return text


def near_duplicate(pair: Pair, rng: random.Random) -> Pair:
    """The same scene photographed again (new photometric noise) with nearly the same caption."""
    scene = Scene(pair.scene.background, pair.scene.things, pair.scene.signs, rng.getrandbits(32))
    text = rng.choice((f"{pair.text} again", f"another view : {pair.text}", f"{pair.text} ( 2 )"))
    return Pair(scene, text, "near_duplicate", pair)


def _different_scene(scene: Scene, vocab: Vocabulary, rng: random.Random) -> Scene:
    """A scene that shares neither a sign word nor a (colour, kind) with `scene`."""
    words = {sign.word for sign in scene.signs}
    combos = {thing.combo for thing in scene.things}
    while True:
        other = sample_scene(rng, vocab)
        if words.isdisjoint(s.word for s in other.signs) and combos.isdisjoint(t.combo for t in other.things):
            return other


def _wrong_text(scene: Scene, text: str, vocab: Vocabulary, rng: random.Random) -> str:
    shown = {sign.word for sign in scene.signs}
    words = text.split()
    for index, word in enumerate(words):
        if word in shown:
            wrong = vocab.draw_word(rng)
            while wrong in shown:
                wrong = vocab.draw_word(rng)
            words[index] = wrong
    return " ".join(words)


def mojibake(text: str, rng: random.Random) -> str:
    """The caption with typographic marks and hard spaces, encoded as UTF-8 and read as Windows-1252.

    Undoing the wrong decoding and normalising punctuation and white space gives the caption back, at most with
    straight quotes round one word and dashes for semicolons.
    """
    words = text.replace(" ; ", " \u2013 ").split()
    index = next((i for i, word in enumerate(words) if word.isupper()), rng.randrange(len(words)))
    words[index] = f"\u201c{words[index]}\u201d"
    spaces = ["\u00a0" if rng.random() < 0.3 else " " for _ in words]
    return _misread("".join(word + space for word, space in zip(words, spaces, strict=True))[:-1])


def _misread(text: str) -> str:
    """UTF-8 read as Windows-1252; the five bytes it leaves undefined become control characters, as in browsers."""
    out = []
    for byte in text.encode("utf-8"):
        try:
            out.append(bytes([byte]).decode("cp1252"))
        except UnicodeDecodeError:
            out.append(chr(byte))
    return "".join(out)


def html(text: str, rng: random.Random) -> str:
    """The caption wrapped in tags, with links and entities, as scraped."""
    words = text.split()
    tag = rng.choice(_TAGS)
    start = rng.randrange(len(words))
    end = rng.randint(start, len(words) - 1)
    words[start] = f'<a href="http://img{rng.randint(1, 99)}.example/{rng.randint(1000, 9999)}">' + words[start]
    words[end] = words[end] + "</a>"
    body = " ".join(words).replace(" and ", rng.choice((" and ", "&nbsp;and&nbsp;", "<br>and ")))
    return f"<{tag}>{body}</{tag}>"


def _spam(rng: random.Random) -> str:
    if rng.random() < 0.4:
        return rng.choice(_BOILERPLATE)
    return f"{rng.choice(_SPAM_STARTS)} {rng.choice(_SPAM_ENDS)}"
