"""Chinese texts: other characters, and rows with small changes."""

from __future__ import annotations

import random
import sys
import types
from typing import Any

import pytest

from bettersynth.core.errors import ConfigError, MissingExtraError
from bettersynth.formats.data_juicer import DEFAULT_TOKENS
from bettersynth.infer.loader import load_converter
from bettersynth.infer.protocols import TextConverter
from bettersynth.ops._text_changes_zh import CHANGES, _groups, swapped
from bettersynth.ops.mappers.chinese_convert_mapper import ChineseConvertMapper
from bettersynth.ops.mappers.nlpcda_zh_mapper import NlpcdaZhMapper

TOKENS = DEFAULT_TOKENS.pattern()
CAPTION = "<__dj__image> 这里一共有5种不同的汽车，旁边站着3个孩子。 <|__dj__eoc|>"
ALL = dict.fromkeys(CHANGES, True)


def variants(text: str, seed: int = 1, **keys: Any) -> list[str]:
    operator = NlpcdaZhMapper(**keys)
    operator.check()
    return operator.variants(text, random.Random(seed), TOKENS)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_makes_another_text_and_leaves_tokens_alone(name: str) -> None:
    for seed in range(20):
        (found,) = variants(CAPTION, seed, **{name: True})
        assert found != CAPTION and TOKENS.findall(found) == TOKENS.findall(CAPTION)
        assert found.startswith("<__dj__image> ") and found.endswith(" <|__dj__eoc|>")
        if name == "delete_random_char":
            assert len(found) == len(CAPTION) - 1
        if name == "swap_random_char":
            assert sorted(found) == sorted(CAPTION)
        if name == "replace_equivalent_num":
            assert sum(character.isascii() and character.isdigit() for character in found) == 1


def test_counts_and_order() -> None:
    each = variants(CAPTION, aug_num=2, **ALL)
    assert len(each) == 2 * len(CHANGES) == len(set(each))
    assert len(variants(CAPTION, aug_num=3, sequential=True, **ALL)) == 3
    assert variants(CAPTION) == [] and variants("no Chinese here", **ALL) == []
    assert variants("5", delete_random_char=True, replace_equivalent_num=True, aug_num=9) in (
        ["五", "伍"],
        ["伍", "五"],
    )
    assert variants(CAPTION, **ALL) == variants(CAPTION, **ALL)
    assert (
        swapped("天天天", random.Random(1)) == "天天天"
        and CHANGES["delete_random_char"]("天", random.Random(1)) == "天"
    )


def test_no_word_or_character_stands_in_two_groups() -> None:
    for others in _groups():
        assert len(others) > 100
        for word, group in others.items():
            assert word not in group and len(set(group)) == len(group) >= 1
            assert all(set(others[other]) | {other} == set(group) | {word} for other in group)


def test_characters_are_converted_by_what_the_mode_names(ctx: Any, batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Stub:
        def __init__(self, config: str) -> None:
            asked.append(config)
            if config == "bad.json":
                raise RuntimeError("no such file")

        def convert(self, text: str) -> str:
            return text.replace("国", "國")

    stub = types.ModuleType("opencc")
    stub.OpenCC = Stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opencc", stub)
    rows = batch(["国 <__dj__image>", ""])
    assert ChineseConvertMapper().apply(rows, ctx).column("text").to_pylist() == ["國 <__dj__image>", ""]
    ChineseConvertMapper(config="own.json").apply(rows, ctx)
    ChineseConvertMapper(mode="t2jp").apply(rows, ctx)
    ChineseConvertMapper(mode="t2jp").apply(rows, ctx)
    assert asked == ["s2t", "own.json", "t2jp"]
    assert isinstance(load_converter("fake"), TextConverter)
    with pytest.raises(ConfigError, match="cannot load the model"):
        load_converter("bad.json")
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(MissingExtraError, match="'chinese' extra"):
        load_converter("s2t")
