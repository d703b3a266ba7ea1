"""Simple statistics of a data set, for exploring it and for showing what a recipe changed. No models."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bettersynth.core.errors import DataError
from bettersynth.core.fingerprint import digest_file
from bettersynth.core.lang import t
from bettersynth.engine import trace
from bettersynth.engine.looks import Looks, suggestions
from bettersynth.engine.source import find_files
from bettersynth.formats import llava
from bettersynth.formats.data_juicer import DEFAULT_TOKENS, field_problem
from bettersynth.formats.jsonl import BadLine, read_rows
from bettersynth.formats.pictures import PictureFolder
from bettersynth.formats.read import LINES, ReadOptions, read_any
from bettersynth.media.header import read_header
from bettersynth.ops._text_fix import is_bad, may_be_mojibake
from bettersynth.ops._words import num_special, refined_words

_BINS = 24
_SHOWN = 4
_MARKUP = re.compile(r"<[a-zA-Z/][^>]*>|&[a-z]+;")
_TEXT_STATS = ("caption_len", "num_words", "special_char_ratio")
_IMAGE_STATS = ("image_width", "image_height", "aspect_ratio", "image_kib")


class Collected:
    """Values and counts of one data set. Memory: a few numbers per row."""

    def __init__(self, looks: Looks | None = None) -> None:
        self.looks = looks
        self.values: dict[str, list[float]] = {name: [] for name in (*_TEXT_STATS, *_IMAGE_STATS)}
        self.counts: Counter[str] = Counter()
        self.texts: Counter[int] = Counter()
        self.images: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.pairs = 0
        self._files: dict[tuple[int, ...], list[Path]] = {}

    def add(self, record: Mapping[str, Any], root: Path, text_key: str, image_key: str) -> None:
        """Take in one row."""
        caption = DEFAULT_TOKENS.strip(record[text_key])
        name = str(record.get("id", ""))
        self.counts["rows"] += 1
        self.ids[name] += 1
        self.texts[hash(caption)] += 1
        self._note("repeated id", name, self.ids[name] > 1)
        self._note("repeated text", name, self.texts[hash(caption)] > 1)
        self.values["caption_len"].append(len(caption))
        self.values["num_words"].append(len(refined_words(caption, lower=False)))
        self.values["special_char_ratio"].append(num_special(caption) / len(caption) if caption else 0.0)
        self._count("empty_caption", name, not caption)
        self.counts["not_ascii"] += not caption.isascii()
        self._count("markup", name, _MARKUP.search(caption) is not None)
        images = record.get(image_key) or []
        row = (name, str(images[0]) if images else "", caption)
        if self.looks is not None:
            self._count("mojibake", name, may_be_mojibake(caption) and is_bad(caption))
            self.looks.add_text(record[text_key], caption, name)
            for stat in _TEXT_STATS:
                self.looks.add_value(stat, self.values[stat][-1], row)
        self.counts["without_image"] += not images
        self.pairs += image_key not in record and isinstance(record.get("image"), str)
        self._count("image_tokens_differ", name, DEFAULT_TOKENS.num_images(record[text_key]) != len(images))
        for image in images:
            self.images[image] += 1
            self._note("repeated image", name, self.images[image] > 1)
            if self.images[image] == 1:
                self._add_image(root / image, (name, str(image), caption))

    def refuse(self, problem: str, name: str) -> None:
        """Count a problem of the row or line of that name."""
        self.problems[problem] += 1
        self._note(problem, name, True)

    def _count(self, what: str, name: str, is_so: bool) -> None:
        self.counts[what] += is_so
        self._note(what.replace("_", " "), name, is_so)

    def _note(self, what: str, name: str, is_so: bool) -> None:
        """Remember a few rows of each kind."""
        if is_so and len(listed := self.examples.setdefault(what, [])) < _SHOWN:
            listed.append(name)

    def num_same_pictures(self) -> int:
        """Pictures beyond the first of equal ones: named before, or with the bytes of a file of another name.

        Only files of equal size in bytes and pixels are read.
        """
        same = sum(self.images.values()) - len(self.images)
        for files in self._files.values():
            if len(files) > 1:
                same += len(files) - len({digest_file(path) for path in files})
        return same

    def _add_image(self, path: Path, row: tuple[str, str, str]) -> None:
        try:
            header = read_header(path)
        except DataError as error:
            self.refuse(error.message, row[0])
            return
        self._files.setdefault((header.size_bytes, header.width, header.height), []).append(path)
        self.values["image_width"].append(header.width)
        self.values["image_height"].append(header.height)
        self.values["aspect_ratio"].append(round(header.width / header.height, 4))
        self.values["image_kib"].append(round(header.size_bytes / 1024, 2))
        if self.looks is not None:
            for name in _IMAGE_STATS:
                self.looks.add_value(name, self.values[name][-1], row)


def analyze(
    path: Path, *, image_root: Path | None = None, text_key: str = "text", image_key: str = "images"
) -> dict[str, Any]:
    """Counts, problems and distributions of a data set in the Data-Juicer or LLaVA form.

    Returns:
        JSON-able: ``rows``, ``counts`` (rows with markup, without picture, ...), ``duplicates`` (rows beyond the first
        of equal texts, pictures, ids), ``problems`` (message to count), ``examples`` (what was found to a few rows),
        ``plain_pairs`` (rows whose picture only ``convert pairs-to-dj`` would see), ``stats`` (name to mean, min,
        quartiles, max), ``histograms`` (name to ``edges`` and ``counts``), ``scripts`` (rows by main script),
        ``near_duplicates`` (rows whose text nearly equals an earlier one's), ``outliers`` (name to ``smallest`` and
        ``largest`` rows), ``suggestions`` (recipe lines that cut off the outermost percents).

    Raises:
        ConfigError, DataError: the path does not exist or cannot be read.
    """
    looks = Looks()
    collected = collect(path, image_root=image_root, text_key=text_key, image_key=image_key, looks=looks)
    counts = dict(collected.counts)
    num_near, near = looks.near_duplicates()
    arrays = {name: np.array(values, np.float64) for name, values in collected.values.items() if values}
    return {
        "rows": counts.pop("rows", 0),
        "counts": counts,
        "duplicates": {
            name: sum(counter.values()) - len(counter)
            for name, counter in (("text", collected.texts), ("id", collected.ids))
        }
        | {"image": collected.num_same_pictures()},
        "problems": dict(collected.problems.most_common()),
        "examples": collected.examples | ({"nearly repeated text": near} if near else {}),
        "plain_pairs": collected.pairs,
        "stats": {name: _summary(values) for name, values in arrays.items()},
        "histograms": {
            name: {"edges": (edges := _edges([values])).tolist(), "counts": _count(values, edges)}
            for name, values in arrays.items()
        },
        "scripts": dict(looks.scripts.most_common()),
        "near_duplicates": num_near,
        "outliers": looks.outliers(),
        "suggestions": suggestions(arrays, looks.lengths),
    }


def collect(
    path: Path,
    *,
    image_root: Path | None = None,
    text_key: str = "text",
    image_key: str = "images",
    looks: Looks | None = None,
) -> Collected:
    """Read a data set once and gather its values; bad records are counted as problems."""
    collected = Collected(looks)
    for file in find_files([path]):
        for number, record in enumerate(_records(file), 1):
            problem = record.reason if isinstance(record, BadLine) else None
            if isinstance(record, dict):
                problem = field_problem(record, text_key=text_key, image_key=image_key)
            if problem is not None:
                named = record.get("id") if isinstance(record, dict) else None
                line = record.line if isinstance(record, BadLine) else number
                collected.refuse(problem.split(":")[0], t("line {n}", n=line) if named is None else str(named))
                collected.pairs += isinstance(record, dict) and isinstance(record.get("image"), str)
            elif isinstance(record, dict):
                collected.add(record, image_root or file.parent, text_key, image_key)
    return collected


def _records(file: Path) -> Iterator[Any]:
    if file.suffix == ".json":
        reading = llava.read_llava(file)
        if reading.records or not reading.rejected:
            yield from (BadLine(bad.row, bad.reason, "", bad.id) for bad in reading.rejected)
            yield from llava.llava_to_dj(reading.records, only_keep_caption=True)
            return
    if file.name.endswith(LINES):
        yield from (record for _, record in read_rows(file))
        return
    with tempfile.TemporaryDirectory() as folder:  # pictures inside the file; their sizes are not looked at
        yield from read_any(file, ReadOptions(), PictureFolder(Path(folder), "images"))


def histograms(before: Path, after: Path, *, image_root: Path | None = None) -> dict[str, dict[str, Any]]:
    """Distributions of two versions of a data set over common bins, in the form reports show.

    Args:
        before: the data before, a file or folder; ``after``: a processed folder (its data file) or a file.

    Returns:
        Stat name to ``{"edges": [n+1], "before": [n], "after": [n]}``: text and picture statistics, then the scores
        that the recipe's operators computed (from the trace, when ``after`` is a processed folder).
    """
    root = image_root or (before if before.is_dir() else before.parent)
    data = after / "processed_data.jsonl" if after.is_dir() else after
    left, right = collect(before, image_root=root), collect(data, image_root=root)
    found = {}
    for name in (*_TEXT_STATS, *_IMAGE_STATS):
        values = [np.array(part.values[name], np.float64) for part in (left, right)]
        if len(values[0]):
            found[name] = _pair(values)
    if (after / trace.TRACE_FILE).is_file():
        found.update(score_histograms(after))
    return found


def score_histograms(folder: Path) -> dict[str, dict[str, Any]]:
    """Distributions of the operators' scores: over all rows that were scored, and over those that stayed."""
    every: dict[str, list[float]] = {}
    kept: dict[str, list[float]] = {}
    for action in ("kept", "dropped"):
        for event in trace.load(folder, action=action):
            for name, value in event["scores"].items():
                number = float(np.mean(value)) if isinstance(value, list) and value else value
                if isinstance(number, int | float):
                    every.setdefault(name, []).append(float(number))
                    if action == "kept":
                        kept.setdefault(name, []).append(float(number))
    return {name: _pair([np.array(values), np.array(kept.get(name, []))]) for name, values in sorted(every.items())}


def _pair(values: Sequence[npt.NDArray[np.float64]]) -> dict[str, Any]:
    edges = _edges(values)
    return {"edges": edges.tolist(), "before": _count(values[0], edges), "after": _count(values[1], edges)}


def _edges(values: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Bins over the middle 99 % of all values; what lies beyond falls in the outer bins."""
    joined = np.concatenate(list(values))
    low, high = np.quantile(joined, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.array([round(float(edge), 6) for edge in np.linspace(low, high, _BINS + 1)], np.float64)


def _count(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> list[int]:
    counts: list[int] = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)[0].tolist()
    return counts


def _summary(values: npt.NDArray[np.float64]) -> dict[str, float]:
    low, q1, median, q3, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    names = ("min", "q1", "median", "q3", "max", "mean")
    return {n: round(float(v), 4) for n, v in zip(names, (low, q1, median, q3, high, values.mean()), strict=True)}
