"""Filters that ask a model about texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bettersynth.ops._context import OpContext
from bettersynth.ops.filters.alphanumeric_filter import AlphanumericFilter
from bettersynth.ops.filters.language_id_score_filter import LanguageIdScoreFilter
from bettersynth.ops.filters.perplexity_filter import PerplexityFilter
from bettersynth.ops.filters.token_num_filter import TokenNumFilter


def rows_of(texts: list[str]) -> Any:
    return pa.record_batch({"text": pa.array(texts, pa.string())})


def test_tokens_are_counted() -> None:
    operator = TokenNumFilter(hf_tokenizer="fake", min_num=3)
    stats = operator.score(rows_of(["a b, c", "", "x"]), OpContext())
    assert stats["num_token"].to_pylist() == [4, 0, 1]
    assert operator.keep(stats).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="hf_tokenizer needs"):
        TokenNumFilter().check()


def test_languages_are_kept_by_name_and_confidence() -> None:
    texts = ["the dog is on the grass and the cat is in the house", "\u4f60\u597d\u4e16\u754c", "42"]
    operator = LanguageIdScoreFilter(model="builtin", lang=("en", "zh"), min_score=0.5)
    stats = operator.score(rows_of(texts), OpContext())
    assert stats["lang"].to_pylist() == ["en", "zh", "und"]
    assert operator.keep(stats).tolist() == [True, True, False]
    assert operator.reasons(stats, np.array([2])) == ["lang not in lang"]
    only = LanguageIdScoreFilter(model="builtin", lang="en", min_score=0.0)
    assert only.keep(stats).tolist() == [True, False, False]
    sure = LanguageIdScoreFilter(model="builtin", min_score=0.5)
    assert sure.reasons(stats, np.array([2])) == ["lang_score below min_score"]
    scores = {"lang": stats["lang"], "lang_score": pa.array([0.4, 0.5, 0.6])}
    for keys, kept in (
        ({}, [0, 1, 1]),
        ({"min_closed_interval": False}, [0, 0, 1]),
        ({"reversed_range": True}, [1, 1, 0]),
    ):
        assert LanguageIdScoreFilter(model="builtin", min_score=0.5, **keys).keep(scores).tolist() == kept
    with pytest.raises(ValueError, match="builtin"):
        LanguageIdScoreFilter().check()


def test_perplexity_is_per_piece_and_line(tmp_path: Path) -> None:
    (tmp_path / "x.arpa").write_text("\\1-grams:\n-1.0 <s>\n-1.0 </s>\n-0.5 a\n-2.0 <unk>\n")
    operator = PerplexityFilter(model=str(tmp_path / "x.arpa"))
    texts = ["a a", "a\na b", "", " "]
    got = operator.score(rows_of(texts), OpContext())["perplexity"].to_pylist()
    # lines end with </s>: (0.5 + 0.5 + 1) / 3, and (0.5 + 1 + 0.5 + 2 + 1) / 5
    assert got == [round(10 ** (2 / 3), 1), 10.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="KenLM"):
        PerplexityFilter().check()
    pieces = PerplexityFilter(model="fake", tokenizer="fake").score(rows_of(["a,b"]), OpContext())
    assert pieces["perplexity"].to_pylist() == [round(10 ** (1.75 / 4), 1)]


def test_a_tokenizer_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="token_num_filter"):
        AlphanumericFilter(tokenization=True).check()
    AlphanumericFilter(tokenization=False).check()
