"""Seeded data: noisy captions, documents with near duplicates, photograph-like JPEGs. Equal seeds give equal bytes.

The mix is drawn so that every operator of the recipes finds work and most rows stay: most captions are plain
sentences, and each kind of damage below touches a few percent of them.
"""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

_COMMON = [
    "the",
    "a",
    "of",
    "and",
    "in",
    "on",
    "with",
    "to",
    "is",
    "at",
    "from",
    "by",
    "for",
    "an",
    "near",
    "under",
    "over",
    "behind",
    "beside",
    "between",
    "two",
    "three",
    "some",
    "many",
    "it",
    "its",
    "this",
    "that",
    "his",
    "her",
    "their",
    "while",
    "who",
    "which",
    "as",
    "into",
    "through",
    "across",
    "along",
    "after",
    "before",
]
_THINGS = [
    "dog",
    "cat",
    "horse",
    "bird",
    "cow",
    "sheep",
    "bus",
    "train",
    "car",
    "truck",
    "boat",
    "bicycle",
    "street",
    "bridge",
    "tower",
    "market",
    "kitchen",
    "table",
    "chair",
    "window",
    "door",
    "lamp",
    "clock",
    "book",
    "bottle",
    "cup",
    "plate",
    "bowl",
    "pizza",
    "cake",
    "orange",
    "apple",
    "banana",
    "umbrella",
    "bench",
    "tree",
    "river",
    "hill",
    "beach",
    "snow",
    "field",
    "road",
    "sign",
    "wall",
    "garden",
    "fence",
    "player",
    "child",
    "woman",
    "man",
    "crowd",
    "camera",
    "laptop",
    "phone",
]
_QUALITIES = "red green blue white black small large old bright empty busy wet broken shiny".split()  # noqa: SIM905
_ACTIONS = "stands sits walks runs waits holds carries watches rides eats reads looks sleeps flies turns".split()  # noqa: SIM905
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "el", "or")]
_MOJIBAKE = ("cafÃ©", "donâ€™t", "naÃ¯ve", "&amp;", "ﬁnal", "ＡＢＣ", "Ã©tÃ©", "â€œsoâ€\x9d", "&quot;", "schÃ¶n")
_SPACES = ("\u00a0", "\u2003", "\u3000", "\u200b", "\t", "  ")
_MARKS = "，。！？：；“”（）…—％"
_EMOJI = "😀🎉🔥🌅🚲🐕✨🍕"
_MANY_PARTS = 12


class Writer:
    """Makes texts from one generator.

    Args:
        seed: equal seeds give equal texts.
        part: texts of another part are others, from the same names.
    """

    def __init__(self, seed: int, part: int = 0) -> None:
        self.rng = random.Random(seed)
        names = ["".join(self.rng.choices(_SYLLABLES, k=self.rng.randint(1, 3))) for _ in range(20_000)]
        self._names = names
        # Zipf-like: the n-th name is drawn with a weight near 1/n, as words are in real captions.
        self._weights = np.cumsum(1.0 / np.arange(1, len(names) + 1)).tolist()
        if part:
            self.rng.seed(f"{seed}:{part}")

    def word(self) -> str:
        """One word; names are drawn by a long-tailed law."""
        draw = self.rng.random()
        for share, words in ((0.40, _COMMON), (0.62, _THINGS), (0.72, _QUALITIES), (0.80, _ACTIONS)):
            if draw < share:
                return self.rng.choice(words)
        return self.rng.choices(self._names, cum_weights=self._weights)[0]

    def sentence(self) -> str:
        """5 to 20 words."""
        words = [self.word() for _ in range(self.rng.randint(5, 20))]
        if len(words) > 10 and self.rng.random() < 0.5:
            words[len(words) // 2] += ","
        return " ".join(words).capitalize() + self.rng.choice("......!?")

    def caption(self) -> str:
        """One to five sentences, sometimes one of them twice, with one kind of damage in about half of the rows."""
        sentences = [self.sentence() for _ in range(1 if self.rng.random() < 0.55 else self.rng.randint(2, 5))]
        if len(sentences) > 2 and self.rng.random() < 0.35:
            sentences.append(self.rng.choice(sentences))
        text = (" " if self.rng.random() < 0.8 else "\n").join(sentences)
        harm = self.rng.choices(range(len(_HARMS)), weights=_WEIGHTS)[0]
        return _HARMS[harm](self, text)

    def document(self) -> str:
        """Two to twelve sentences in one to three lines."""
        lines = [" ".join(self.sentence() for _ in range(self.rng.randint(2, 4)))]
        lines += [
            " ".join(self.sentence() for _ in range(self.rng.randint(2, 4))) for _ in range(self.rng.randint(0, 2))
        ]
        return "\n".join(lines)

    def near(self, document: str) -> str:
        """The same document, in other case, or with 1 to 10 % other words."""
        draw = self.rng.random()
        if draw < 0.3:
            return document
        if draw < 0.4:
            return document.upper()
        words = document.split(" ")
        for _ in range(max(1, int(len(words) * self.rng.choice((0.01, 0.03, 0.1))))):
            words[self.rng.randrange(len(words))] = self.word()
        return " ".join(words)

    def link(self) -> str:
        """An address, with or without a scheme."""
        rng = self.rng
        place = f"{rng.choice(self._names)}.{rng.choice(('com', 'org', 'net'))}"
        return f"{rng.choice(('https://', 'http://', 'www.'))}{place}/{self.word()}?n={rng.randint(1, 999)}"


def _spread(writer: Writer, text: str, parts: tuple[str, ...]) -> str:
    words = text.split(" ")
    for _ in range(writer.rng.randint(1, 3)):
        place = writer.rng.randrange(len(words))
        words[place] += writer.rng.choice(parts)
    return " ".join(words)


_HARMS: tuple[Callable[[Writer, str], str], ...] = (
    lambda writer, text: text,
    lambda writer, text: f"{text} {writer.link()}",
    lambda writer, text: _spread(writer, text, tuple(" " + word for word in _MOJIBAKE)),
    lambda writer, text: "".join(writer.rng.choice(_MARKS) if letter in ".,!?" else letter for letter in text),
    lambda writer, text: _spread(writer, text, _SPACES),
    lambda writer, text: text + "".join(writer.rng.choices(_EMOJI, k=writer.rng.randint(1, 5))),
    lambda writer, text: f"{writer.word()} " * writer.rng.randint(15, 50),
    lambda writer, text: "".join(writer.rng.choices("#$%&*0123456789-_=+", k=writer.rng.randint(10, 60))),
    lambda writer, text: "".join(chr(writer.rng.randint(0x4E00, 0x9FA5)) for _ in range(writer.rng.randint(5, 50))),
    lambda writer, text: writer.rng.choice(("", " ", "ok", f"IMG_{writer.rng.randint(0, 9999):04d}.JPG")),
    lambda writer, text: f"<p>{text}</p> see {writer.word()}@{writer.word()}.org",
)
_WEIGHTS = (46, 10, 9, 8, 8, 4, 3, 2, 3, 2, 5)


def _in_parts(make: Callable[[range], list[dict[str, Any]]], count: int, rows: int) -> Iterator[dict[str, Any]]:
    """Rows made in parts that know nothing of each other, so that fewer rows are the beginning of more.

    Args:
        rows: rows of a part; many parts are made by as many processes as there are processors.
    """
    parts = [range(start, min(count, start + rows)) for start in range(0, count, rows)]
    if len(parts) < _MANY_PARTS:
        for part in parts:
            yield from make(part)
        return
    with multiprocessing.get_context("spawn").Pool() as pool:
        for found in pool.imap(make, parts):
            yield from found


def captions(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Rows ``{id, text, meta}``; fewer are the beginning of more."""
    return _in_parts(partial(_captions, seed), count, 10_000)


def _captions(seed: int, part: range) -> list[dict[str, Any]]:
    writer = Writer(seed, part.start)
    return [{"id": f"{row:08d}", "text": writer.caption(), "meta": {"part": row % 5}} for row in part]


def documents(count: int, seed: int = 1, *, share: float = 0.2) -> Iterator[dict[str, Any]]:
    """Rows ``{id, text}``; ``share`` of them are near duplicates of an earlier one."""
    writer, made = Writer(seed), []
    for row in range(count):
        repeat = made and writer.rng.random() < share
        made.append(writer.near(writer.rng.choice(made)) if repeat else writer.document())
        yield {"id": f"{row:08d}", "text": made[-1]}


_SIZES = (
    (640, 480),
    (480, 640),
    (500, 375),
    (1024, 768),
    (800, 600),
    (336, 336),
    (224, 224),
    (1280, 960),
    (1600, 400),
    (64, 64),
)
_SIZE_WEIGHTS = (32, 14, 16, 8, 8, 8, 4, 4, 3, 3)


def pictures(folder: Path, count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Write ``images/N.jpg`` and yield their rows; about one in twelve shows the same as an earlier picture.

    Fewer are the beginning of more.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    return _in_parts(partial(_pictures, folder, seed), count, 500)


def _pictures(folder: Path, seed: int, part: range) -> list[dict[str, Any]]:
    writer, pixels = Writer(seed, part.start), np.random.default_rng([seed, part.start])
    earlier: Any = None
    rows = []
    for row in part:
        name = f"images/{row:06d}.jpg"
        width, height = writer.rng.choices(_SIZES, weights=_SIZE_WEIGHTS)[0]
        if earlier is not None and writer.rng.random() < 0.08:
            image = earlier.resize((earlier.width * 3 // 4, earlier.height * 3 // 4))
        else:
            image = _picture(pixels, width, height)
            earlier = image if min(image.size) >= 200 and writer.rng.random() < 0.3 else earlier
        image = image.convert("L") if writer.rng.random() < 0.03 else image
        image.save(folder / name, quality=writer.rng.choice((72, 80, 88, 92, 95)))
        text = f"<__dj__image>\n{writer.caption()} <|__dj__eoc|>"
        rows.append({"id": f"{row:08d}", "images": [name], "text": text})
    return rows


def _picture(pixels: np.random.Generator, width: int, height: int) -> Any:
    """Soft fields, hard shapes and grain: compresses and decodes like a photograph."""
    from PIL import Image, ImageDraw

    coarse = pixels.integers(0, 256, (max(2, height // 60), max(2, width // 60), 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(int(pixels.integers(3, 20))):
        x, y = int(pixels.integers(0, width)), int(pixels.integers(0, height))
        box = (x, y, x + int(pixels.integers(4, width // 2)), y + int(pixels.integers(4, height // 2)))
        shape = draw.ellipse if pixels.random() < 0.5 else draw.rectangle
        shape(box, fill=tuple(int(part) for part in pixels.integers(0, 256, 3)))
    grain = pixels.standard_normal((height, width, 1), np.float32) * np.float32(pixels.choice([2.0, 5.0, 10.0]))
    return Image.fromarray(np.clip(np.asarray(image) + grain.astype(np.int16), 0, 255).astype(np.uint8))


def beginning(path: Path, count: int) -> Path:
    """The first rows of a file as a file beside it, where relative paths mean the same."""
    part = path.with_name(f"{path.stem}_first_{count}{path.suffix}")
    with path.open("rb") as source, part.open("wb") as target:
        target.writelines(islice(source, count))
    return part


def write(path: Path, rows: Iterator[dict[str, Any]]) -> Path:
    """Write rows as JSON lines; a file that is there already is taken as it is."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = path.with_name(f".{path.name}")
        with temp.open("w", encoding="utf-8") as handle:
            for row in rows:
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
        temp.replace(path)
    return path
