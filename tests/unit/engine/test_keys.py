"""A cached result depends on the code that made it: the operator's file and the helpers it imports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bettersynth.engine import keys
from bettersynth.ops._catalog import operator_class


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    keys._code_digest.cache_clear()
    yield
    keys._code_digest.cache_clear()


def _key() -> str:
    keys._code_digest.cache_clear()
    operator: Any = operator_class("image_deduplicator")()
    return keys.phase_key("partial", operator, {}, 0)


@pytest.mark.parametrize(
    ("module", "matters"),
    [
        ("bettersynth.ops.dedup.image_deduplicator", True),
        ("bettersynth.ops._minhash", True),
        ("bettersynth.media.hash", True),
        ("bettersynth.media.lanczos", True),
        ("bettersynth.ops.base", False),
        ("bettersynth.ops._words", False),
    ],
)
def test_an_edited_helper_changes_the_key(module: str, matters: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = _key(), keys._source
    monkeypatch.setattr(keys, "_source", lambda name: read(name) + ("# edited" if name == module else ""))
    assert (_key() != before) is matters


def test_code_without_a_file_has_no_digest() -> None:
    assert keys._code_digest("no.such.module") == ""


def test_an_edited_file_of_the_user_changes_the_key(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text("def process_single(sample):\n    return sample\n")

    def key(file_path: str) -> str:
        operator: Any = operator_class("python_file_mapper")(file_path=file_path)
        return keys.phase_key("map", operator, {}, 0)

    before, text = key(str(code)), key("no such file.py")
    assert key(str(code)) == before and text == key("no such file.py")
    code.write_text("def process_single(sample):\n    return None\n")
    assert key(str(code)) != before


def test_an_edited_word_list_changes_the_key_and_odd_texts_are_no_paths(tmp_path: Path) -> None:
    def key(**given: Any) -> str:
        operator: Any = operator_class("stopwords_filter")(**given)
        return keys.phase_key("score", operator, {}, 0)

    (tmp_path / "stopwords_en.json").write_text('{"en": ["a"]}')
    before = key(stopwords_dir=str(tmp_path))
    assert key(stopwords_dir=str(tmp_path)) == before
    (tmp_path / "stopwords_en.json").write_text('{"en": ["the"]}')
    assert key(stopwords_dir=str(tmp_path)) != before
    for text in ("~nobody.X", "a\0.b", "x" * 5000 + ".txt"):
        assert keys._with_contents("text", [text]) == [text]
    assert keys._with_contents("save_dir", str(tmp_path)) == str(tmp_path)
