"""Vectorised text operators give for a batch what plain Python gives for each text."""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import reduce
from math import isqrt
from typing import Any

import ftfy
import numpy as np
import pyarrow as pa
import pytest
from ftfy.badness import is_bad
from hypothesis import given, settings
from hypothesis import strategies as st

from bettersynth.ops import _text_fix
from bettersynth.ops._catalog import OPERATORS, operator_class
from bettersynth.ops._context import OpContext
from bettersynth.ops._text_codes import Codes, SelectiveTextMapper, gram_hashes, span_hashes
from bettersynth.ops._words import num_special, refined_words, word_spans
from bettersynth.ops.filters import character_repetition_filter as repetition

PIECES = (
    *("One. ", "Two!", "one. ", "Two! Two!", "a b c d e ", "a b c d e ", "word ", "note:this", "www.x.org/a", "x.yz/"),
    *("http://a.b/c", "me@x.org", "1.2.3.4", "<b>", "</b>", "&amp;", "&lt;", "<li>x</li>", "\n", "\r\n", "\t", "  "),
    *("\u00e9\u0301", "\u0130I\u0131", "\u03a3\u03c3\u03c2", "\u4f60\u597d\u3002", "\uff11\uff0c", "\u300a", "\u2026"),
    *(
        "\u201cq\u201d",
        "\u2019",
        "\u00c3\u00a9",
        "\u00e2\u20ac\u2122",
        "\u0153",
        "\u00c2 ",
        "\ufb01",
        "\u3000",
        "\x1b[1m",
    ),
    *(
        "\u200b",
        "\u00a0",
        "\u2028",
        "\x85",
        "\ufeff",
        "\U0001f600",
        "\u05d0\u05d1",
        "\u0627",
        "\u1100\u1161",
        "K\u212a",
    ),
    *("......", "...", "\u2026\u2026", "!?", "%", "\u2014", "\x00", "\x1c", "ABCABCABCABCABCABC", "$$$$", "12"),
    *("\\section{a}", "\\appendix", "% c", "\\newcommand{\\a}{b}\n", "\\a ", "/* Copyright */", "/*", "*/", "// x\n"),
    *("a b\nc d\n", "<image>", "<__dj__image>", "<|__dj__eoc|>", "x" * 30, "\r", "\v", "\x1e\n"),
)
TEXTS = (
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=9)
    .map("".join)
    .filter(lambda text: not any(0xD800 <= ord(character) < 0xE000 for character in text))
)
BATCHES = st.lists(TEXTS, max_size=7)
QUICK = settings(max_examples=60, deadline=None, derandomize=True)


def column(texts: list[str]) -> Any:
    return pa.array(texts, pa.string())


def rows_of(texts: list[str]) -> Any:
    return pa.record_batch({"text": column(texts)})


def character_repetition(text: str, n: int) -> float:
    counts = Counter(text[i : i + n] for i in range(len(text) - n + 1))
    if not counts:
        return 0.0
    ordered = sorted(counts.values(), reverse=True)
    return sum(ordered[: min(isqrt(len(ordered)), len(ordered) - ordered.count(1))]) / sum(ordered)


def word_repetition(text: str, n: int) -> float:
    found = refined_words(text, lower=True)
    counts = Counter(tuple(found[i : i + n]) for i in range(len(found) - n + 1))
    return sum(c for c in counts.values() if c > 1) / counts.total() if counts else 0.0


SIMPLE: dict[str, tuple[dict[str, Any], Callable[[str], float]]] = {
    "words_num_filter": ({}, lambda text: len(refined_words(text, lower=False))),
    "alphanumeric_filter": ({}, lambda text: sum(map(str.isalnum, text)) / max(1, len(text))),
    "special_characters_filter": ({}, lambda text: num_special(text) / max(1, len(text))),
    "average_line_length_filter": ({}, lambda text: len(text) / max(1, len(text.splitlines()))),
    "maximum_line_length_filter": ({}, lambda text: max(map(len, text.splitlines()), default=0)),
    "character_repetition_filter": ({"rep_len": 3}, lambda text: character_repetition(text, 3)),
    "word_repetition_filter": ({"rep_len": 2}, lambda text: word_repetition(text, 2)),
}
SELECTIVE = [name for name in OPERATORS.names() if issubclass(operator_class(name), SelectiveTextMapper)]


@pytest.mark.parametrize("name", sorted(SIMPLE))
@QUICK
@given(texts=BATCHES)
def test_filters(name: str, texts: list[str]) -> None:
    options, simple = SIMPLE[name]
    operator: Any = operator_class(name)(**options)
    assert operator.score(rows_of(texts), OpContext())[operator.stat].to_pylist() == [simple(text) for text in texts]


@pytest.mark.parametrize("name", SELECTIVE)
@QUICK
@given(texts=BATCHES)
def test_mappers_leave_only_what_they_would_not_change(name: str, texts: list[str]) -> None:
    operator: Any = operator_class(name)()
    got = operator.apply(rows_of(texts), OpContext()).column("text").to_pylist()
    assert got == [operator.rewrite(text) for text in texts]


@QUICK
@given(texts=st.lists(TEXTS, max_size=12), names=st.permutations(SELECTIVE))
def test_mappers_after_mappers(texts: list[str], names: list[str]) -> None:
    batch = rows_of(["plain words"] * 12 + texts)
    for name in names[:5]:
        operator: Any = operator_class(name)()
        expected = [operator.rewrite(text) for text in batch.column("text").to_pylist()]
        batch = operator.apply(batch, OpContext())
        assert batch.column("text").to_pylist() == expected, name


@QUICK
@given(texts=BATCHES)
def test_sentences_without_case(texts: list[str]) -> None:
    for options in ({"lowercase": True}, {"ignore_special_character": False}, {"min_repeat_sentence_length": 0}):
        operator: Any = operator_class("remove_repeat_sentences_mapper")(**options)  # type: ignore[arg-type]
        got = operator.apply(rows_of(texts), OpContext()).column("text").to_pylist()
        assert got == [operator.rewrite(text) for text in texts]


IDEMPOTENT = (
    "punctuation_normalization_mapper",
    "remove_bibliography_mapper",
    "remove_header_mapper",
    "remove_long_words_mapper",
    "remove_non_chinese_character_mapper",
    "remove_specific_chars_mapper",
    "remove_words_with_incorrect_substrings_mapper",
)


@pytest.mark.parametrize("name", IDEMPOTENT)
@QUICK
@given(text=TEXTS)
def test_a_second_pass_changes_nothing(name: str, text: str) -> None:
    operator: Any = operator_class(name)()
    once = operator.rewrite(text)
    assert operator.rewrite(once) == once


@pytest.mark.parametrize("form", ["NFC", "NFKC", "NFD", "NFKD"])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=TEXTS)
def test_fixing_is_what_ftfy_does(form: Any, text: str) -> None:
    assert _text_fix.fix(text, form) == ftfy.fix_text(text, normalization=form)


_BROKEN = st.tuples(
    st.sampled_from(
        [
            "sch\u00f6n \u2013",
            "\u041f\u0440\u0438\u0432\u0435\u0442",
            "\u4f60\u597d\u3002",
            "\u00e0 la",
            "\u20ac 5 \u00bd",
            "\u03b5\u03bb",
        ]
    ),
    st.lists(st.sampled_from(["cp1252", "cp1251", "latin-1", "macroman", "cp437", "cp1257"]), max_size=2),
).map(lambda pair: reduce(lambda text, name: text.encode().decode(name, "replace"), pair[1], pair[0]))
_GAPS = st.sampled_from(["", " ", "a", " a ", "A few words, ", "x" * 11, "x" * 12, "x" * 13, "\n", "\u00c2 ", "."])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(pieces=st.lists(st.one_of(_BROKEN, _GAPS, st.characters(min_codepoint=0x80, max_codepoint=0x2600)), max_size=8))
def test_decoding_anew_is_what_ftfy_does(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert _text_fix.is_bad(text) == is_bad(text)
    assert _text_fix.fix_encoding(text) == ftfy.fix_encoding(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.text(st.sampled_from(sorted(_text_fix._tables().named) + list(" aZ.1")), max_size=8))
def test_the_quick_test_never_misses_mojibake(text: str) -> None:
    assert _text_fix.may_be_mojibake(text) or not is_bad(text)
    rows = set(operator_class("fix_unicode_mapper")().candidates(Codes(column([text]))).tolist())  # type: ignore[attr-defined]
    assert rows or ftfy.fix_text(text) == text


def test_inert_characters_never_join() -> None:
    joins = set()
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            joins.add(int(parts[1], 16))
    joins.update(range(0x1161, 0x1176), range(0x11A7, 0x11C3))  # Hangul vowels and finals join by rule
    assert not [hex(code) for code in joins if code > 0x7F and _text_fix.is_inert(chr(code), "NFC")]


def test_a_text_of_any_length_is_fixed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_text_fix, "_LONG", 50)
    text = "caf\u00c3\u00a9 \u201cx\u201d\r\n" * 9
    assert _text_fix.fix(text, "NFC") == ftfy.fix_text(text)
    assert _text_fix.fix("&lt;a\n<b &lt;\n&lt;", "NFC") == ftfy.fix_text("&lt;a\n<b &lt;\n&lt;")


@QUICK
@given(texts=BATCHES)
def test_word_spans_are_the_refined_words(texts: list[str]) -> None:
    codes = Codes(column(texts))
    spans = word_spans(codes, lower=False)
    joined = "".join(texts)
    got: list[list[str]] = [[] for _ in texts]
    for row, start, stop in zip(spans.rows.tolist(), spans.starts.tolist(), spans.stops.tolist(), strict=True):
        got[row].append(joined[start:stop])
    assert got == [refined_words(text, lower=False) for text in texts]
    assert [joined[a:b] for a, b in zip(codes.starts[:-1], codes.starts[1:], strict=True)] == texts


def test_a_slice_of_a_column_is_read_from_its_start() -> None:
    whole = column(["\u00e9a", "bc", "", "d"])
    assert "".join(map(chr, Codes(whole.slice(1, 3)).codes)) == "bcd"
    assert Codes(whole.slice(1, 3)).starts.tolist() == [0, 2, 2, 3]


def test_equal_runs_have_equal_hashes_wherever_they_stand() -> None:
    values = np.array([1, 2, 3, 9, 1, 2, 3, 4], np.uint32)
    for n in (1, 2, 3):
        hashes = gram_hashes(values, n)
        assert len(hashes) == 9 - n and hashes[0] == hashes[4] and hashes[0] != hashes[1]
    spans = span_hashes(values, np.array([0, 4, 1]), np.array([3, 7, 3]))
    assert spans[0] == spans[1] != spans[2]


def test_repetition_is_exact_even_when_hashes_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repetition, "gram_hashes", lambda values, n: np.zeros(max(0, len(values) - n + 1), np.uint32))
    texts = ["abcabcabcx", "abcdefgh", "", "aaaa"]
    operator: Any = repetition.CharacterRepetitionFilter(rep_len=3)
    got = operator.score(rows_of(texts), OpContext())["char_rep_ratio"].to_pylist()
    assert got == [character_repetition(text, 3) for text in texts]


def test_a_long_run_of_special_characters_is_stripped() -> None:
    texts = ["$" * 50 + "word" + "!" * 40 + " " + "-" * 60, "#" * 30]
    spans = word_spans(Codes(column(texts)), lower=False)
    assert spans.starts.tolist() == [50] and spans.stops.tolist() == [54]
