"""The compiled loops say what numpy says, and everything works where nothing can be compiled."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bettersynth.core import native
from bettersynth.ops import _minhash, _text_codes, _words
from bettersynth.ops._catalog import operator_class
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import Filter, Mapper
from bettersynth.ops.dedup.document_minhash_deduplicator import DocumentMinhashDeduplicator
from bettersynth.ops.filters import character_repetition_filter as characters
from bettersynth.ops.mappers import remove_repeat_sentences_mapper as sentences

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def _texts() -> list[str]:
    draw = random.Random(5)
    words = ["a", "bb", "Ünter", "字", "😀", "x\ny", "", "word" * 30, "ΑΣ", "İx", "tab\t"]
    some = [" ".join(draw.choices(words, k=draw.randint(0, 30))) for _ in range(60)]
    return ["", " ", "   a b  ", "one two three four five", "\u00e9" * 70, "\x00 a b c d e", *some]


def _batch(texts: list[str]) -> Any:
    return pa.record_batch([pa.array(texts, pa.string())], names=["text"]).slice(1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@needs_compiler
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"lowercase": False, "window_size": 2, "num_permutations": 37, "num_bands": 5, "num_rows_per_band": 7},
        {"tokenization": "character", "keep_short": True},
        {"ignore_pattern": "[aeiou]", "window_size": 1, "jaccard_threshold": 0.9},
    ],
)
def test_compiled_minhash_equals_numpy(keys: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(native, "_WORTH_ROWS", 1)
    native._path.cache_clear()
    operator: Any = DocumentMinhashDeduplicator(**keys)
    batch = _batch(_texts())
    try:
        assert _minhash.compiled(1) is not None
        fast = operator.partial(batch, None)["bands"]
        monkeypatch.setenv(native.SWITCH, "0")
        assert _minhash.compiled(1) is None
        assert operator.partial(batch, None)["bands"].equals(fast)
    finally:
        native._path.cache_clear()


def _repeating() -> list[str]:
    draw = random.Random(6)
    pieces = [
        "a b c. ",
        "A b c. ",
        "One! ",
        "one!",
        "One!! ",
        "...",
        "? .",
        "- -",
        "ab" * 9,
        "ΑΣ ας ",
        "İx ",
        "字。字。",
        "\n",
        " -- ",
        "(x) ",
        "…",
        "é ",
        "😀",
        "\t",
    ]
    return [*_texts(), *("".join(draw.choices(pieces, k=draw.randint(0, 40))) for _ in range(300)), "x" * 3000]


@needs_compiler
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        *(("character_repetition_filter", {"rep_len": n}) for n in (1, 2, 10, 5000)),
        *(("word_repetition_filter", {"rep_len": n}) for n in (1, 3, 5)),
        ("words_num_filter", {}),
        ("remove_repeat_sentences_mapper", {}),
        ("remove_repeat_sentences_mapper", {"lowercase": True, "min_repeat_sentence_length": 1}),
        ("remove_repeat_sentences_mapper", {"ignore_special_character": False}),
    ],
)
def test_compiled_repetition_equals_numpy(name: str, keys: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(native, "_WORTH_ROWS", 1)
    native._path.cache_clear()
    operator, batch = operator_class(name)(**keys), _batch(_repeating())

    def result() -> Any:
        _text_codes._last.clear()
        if isinstance(operator, Filter):
            return {stat: values.to_pylist() for stat, values in operator.score(batch, OpContext()).items()}
        assert isinstance(operator, Mapper)
        return operator.apply(batch, OpContext()).column("text").to_pylist()

    try:
        assert _words.compiled(10) is not None
        fast = result()
        monkeypatch.setenv(native.SWITCH, "0")
        assert result() == fast
    finally:
        native._path.cache_clear()


def test_without_a_compiler_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    native._path.cache_clear()
    try:
        assert native.library(10**6) is None
    finally:
        native._path.cache_clear()


@needs_compiler
def test_few_rows_do_not_start_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native._path.cache_clear()
    try:
        assert native.library(10) is None
        assert not list(tmp_path.iterdir())
    finally:
        native._path.cache_clear()


def test_a_library_that_says_something_else_is_not_used() -> None:
    class Wrong:
        def bs_minhash(self, *_: Any) -> int:
            return 0

        bs_repeats = bs_sentences = bs_char_repetition = bs_word_repetition = bs_minhash

        class bs_words:  # noqa: N801
            def __new__(cls, *_: Any) -> Any:
                return 0

    for module in (_minhash, _text_codes, _words, characters, sentences):
        assert not module._agrees(Wrong()), module.__name__


@pytest.mark.parametrize("key", [(0.7, 128), (0.9, 128)])
def test_the_known_bands_are_those_that_are_found(key: tuple[float, int]) -> None:
    assert _minhash.search_bands(*key) == _minhash.best_bands(*key) == _minhash._KNOWN_BANDS[key]


@pytest.mark.parametrize("edges", [0, 3, 12, 60])
def test_joined_nodes_share_the_first_of_their_component(edges: int) -> None:
    draw = random.Random(edges)
    pairs = [(draw.randrange(40), draw.randrange(40)) for _ in range(edges)]
    groups = {node: {node} for node in range(40)}
    for left, right in pairs:
        whole = groups[left] | groups[right]
        groups.update(dict.fromkeys(whole, whole))
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    assert _minhash.join(40, ends[:, 0], ends[:, 1]).tolist() == [min(groups[node]) for node in range(40)]
