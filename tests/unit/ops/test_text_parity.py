"""Equal to Data-Juicer 1.6.1 on hand-made corners and drawn texts (recorded by tools/record_data_juicer_text.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bettersynth.core.sample import LLAVA_IMAGE
from bettersynth.formats.data_juicer import DEFAULT_TOKENS
from bettersynth.ops._catalog import operator_class
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import Filter, Generator, GlobalOperator

GOLD: dict[str, Any] = json.loads((Path(__file__).parent / "data_juicer_text.json").read_text(encoding="utf-8"))
TEXTS: list[str] = GOLD["texts"]

# Where we differ on purpose: operator -> (for which texts, why).
LISTED = ("flagged_words_filter", "stopwords_filter")


def has_token(text: str) -> bool:
    return DEFAULT_TOKENS.pattern().search(text) is not None


TOKENS_STAY = (has_token, "special tokens survive every mapper of ours")
ON_PURPOSE: dict[str, tuple[Callable[[str], bool], str]] = {
    "clean_html_mapper": (lambda text: LLAVA_IMAGE in text, "<image> is a token of ours, there it goes as a tag"),
    "remove_header_mapper": TOKENS_STAY,
    "remove_long_words_mapper": TOKENS_STAY,
    "remove_non_chinese_character_mapper": TOKENS_STAY,
    "remove_words_with_incorrect_substrings_mapper": TOKENS_STAY,
}


def run(name: str, params: dict[str, Any], folder: Path) -> Any:
    """Our result in the recorder's form."""
    extra = (
        {f"{name.removesuffix('_filter')}_dir": str(folder)}
        if name in ("flagged_words_filter", "stopwords_filter")
        else {}
    )
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in params.items()}
    operator: Any = operator_class(name)(**options, **extra)
    operator.check()
    batch = pa.record_batch({"text": pa.array(TEXTS, pa.string())})
    if isinstance(operator, Filter):
        return operator.score(batch, OpContext())[operator.stat].to_pylist()  # type: ignore[attr-defined]
    if isinstance(operator, GlobalOperator):
        partial = operator.partial(batch, OpContext())
        return np.flatnonzero(operator.reduce(pa.table(partial), OpContext()).copies).tolist()
    if isinstance(operator, Generator):
        made = operator.make(batch, OpContext())
        out: list[list[str]] = [[] for _ in TEXTS]
        for source, text in zip(made.source.tolist(), made.batch.column("text").to_pylist(), strict=True):
            out[source].append(text)
        one = {str(row): got[0] for row, got in enumerate(out) if len(got) == 1 and got[0] != TEXTS[row]}
        return one | {str(row): got for row, got in enumerate(out) if len(got) != 1}
    texts = operator.apply(batch, OpContext()).column("text").to_pylist()
    return {str(row): text for row, text in enumerate(texts) if text != TEXTS[row]}


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    for kind in ("flagged_words", "stopwords"):
        (folder / f"{kind}.json").write_text(json.dumps(GOLD["lists"]), encoding="utf-8")
    return folder


def case_name(case: dict[str, Any]) -> str:
    return case["operator"] + "".join(f" {key}={value}" for key, value in case["params"].items())


@pytest.mark.parametrize("case", GOLD["cases"], ids=case_name)
def test_operator(case: dict[str, Any], lists: Path) -> None:
    name, expected = case["operator"], case["results"]
    got = run(name, case["params"], lists)
    if not isinstance(got, dict):
        assert got == expected
        return
    differs, _ = ON_PURPOSE.get(name, (lambda text: False, ""))
    rows = [row for row in {*got, *expected} if got.get(row) != expected.get(row) and not differs(TEXTS[int(row)])]
    assert not {TEXTS[int(row)]: (got.get(row), expected.get(row)) for row in rows}


def test_every_recorded_operator_hits_its_corners() -> None:
    for case in GOLD["cases"]:
        results = case["results"]
        if case["operator"].endswith("_mapper"):
            assert results, f"{case_name(case)} changes nothing"
        elif case["operator"].endswith("_deduplicator"):
            assert 0 < len(results) < len(TEXTS)
        else:
            assert len(set(results)) > 2
