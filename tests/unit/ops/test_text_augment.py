"""Other wordings, errors, facts and questions made from texts by rules."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from bettersynth.formats.data_juicer import DEFAULT_TOKENS
from bettersynth.ops._context import OpContext
from bettersynth.ops._text_augment import mend_articles, outside_tokens
from bettersynth.ops._text_errors import ERRORS
from bettersynth.ops._text_facts import keywords, things_and_relations
from bettersynth.ops.generators.qa_from_text_generator import QaFromTextGenerator, text_questions
from bettersynth.ops.generators.rephrase_generator import RephraseGenerator
from bettersynth.ops.generators.synonym_generator import SynonymGenerator, read_synonyms
from bettersynth.ops.mappers.caption_facts_mapper import CaptionFactsMapper
from bettersynth.ops.mappers.nlpaug_en_mapper import NlpaugEnMapper

TOKENS = DEFAULT_TOKENS.pattern()
CAPTION = "<__dj__image> A big dog sitting on the grass near an old house. <|__dj__eoc|>"


def variants(operator: Any, text: str, seed: int = 1) -> list[str]:
    operator.check()
    found: list[str] = operator.variants(text, random.Random(seed), TOKENS)
    return found


def test_synonyms_replace_words_and_mend_articles() -> None:
    found = variants(SynonymGenerator(aug_num=3, replace_ratio=1.0), CAPTION)
    assert found and all(text.startswith("<__dj__image> A ") and text.endswith(". <|__dj__eoc|>") for text in found)
    assert "A large hound seated on the grass close to an aged home" in found[0]
    assert variants(SynonymGenerator(), "nothing to exchange") == []
    assert variants(SynonymGenerator(replace_ratio=1.0), 'the "big" sign says big DOG') == []  # what a sign says stays


def test_synonyms_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("# comment\nimage, x-ray, scan\n\nlonely\n")
    assert set(read_synonyms(str(path))[0]) == {"image", "x-ray", "scan"}
    got = {
        variants(SynonymGenerator(synonyms_file=str(path), replace_ratio=1.0), "An image", seed)[0] for seed in range(9)
    }
    assert got == {"A x-ray", "A scan"}
    for bad, match in (("none.txt", "cannot read"), ("empty.txt", "no synonyms")):
        (tmp_path / "empty.txt").write_text("alone\n")
        with pytest.raises(ValueError, match=match):
            SynonymGenerator(synonyms_file=str(tmp_path / bad)).check()
    with pytest.raises(ValueError, match="replace_ratio"):
        SynonymGenerator(replace_ratio=0.0).check()


def test_no_word_of_our_list_stands_in_two_groups() -> None:
    others, _ = read_synonyms(None)
    for word, group in others.items():
        assert word not in group and len(set(group)) == len(group)
        assert all(set(others[other]) | {other} == set(group) | {word} for other in group)


def test_rules_rephrase_sentences() -> None:
    found = {text for seed in range(20) for text in variants(RephraseGenerator(max_rules=1), CAPTION, seed)}
    assert "<__dj__image> There is a big dog sitting on the grass near an old house. <|__dj__eoc|>" in found
    assert variants(RephraseGenerator(), "it's a cat; the dog isn't here", 3) == ["it is a cat; the dog is not here"]
    assert variants(RephraseGenerator(), "STOP") == []
    swapped = {text for seed in range(30) for text in variants(RephraseGenerator(), "two men and a woman", seed)}
    assert "a woman and two men" in swapped


def test_children_follow_their_source_and_the_seed(batch: Any) -> None:
    rows = batch([CAPTION, "nothing"])
    operator = SynonymGenerator(aug_num=2)
    made, again = operator.make(rows, OpContext(seed=3)), operator.make(rows, OpContext(seed=3))
    assert made.batch.equals(again.batch) and made.source.tolist() == [0, 0, 0, 1]
    assert made.is_child.tolist() == [False, True, True, False]
    alone = SynonymGenerator(keep_original_sample=False).make(rows, OpContext(seed=3))
    assert alone.source.tolist() == [0, 1] and alone.is_child.tolist() == [True, False]  # what has no variant stays
    with pytest.raises(ValueError, match="aug_num"):
        SynonymGenerator(aug_num=0).check()


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_change_words_but_no_tokens(name: str) -> None:
    operator = NlpaugEnMapper(**{name: True})  # type: ignore[arg-type]
    (text,) = variants(operator, CAPTION)
    assert text != CAPTION and text.startswith("<__dj__image> ") and text.endswith(" <|__dj__eoc|>")
    assert variants(operator, "") == [""]
    for short in ("a", "ab", "\u4f60", "..", "a b"):
        assert len(variants(operator, short)) == 1


def test_errors_are_counted_as_data_juicer_counts_them(batch: Any) -> None:
    rows = batch(["one two three four five six"] * 2)
    two: dict[str, Any] = {"delete_random_word": True, "insert_random_char": True, "aug_num": 2}
    made = NlpaugEnMapper(**two).make(rows, OpContext())
    assert made.source.tolist() == [0] * 5 + [1] * 5 and made.is_child.tolist() == [False, True, True, True, True] * 2
    texts = made.batch.column("text").to_pylist()
    assert [len(text.split()) for text in texts[:5]] == [6, 4, 4, 6, 6]  # 30 % of six words go
    assert texts[1:5] != texts[6:]  # rows have seeds of their own
    assert len(NlpaugEnMapper(**two, sequential=True).make(rows, OpContext()).source) == 6
    assert NlpaugEnMapper().make(rows, OpContext()).source.tolist() == [0, 1]
    assert len(NlpaugEnMapper(keep_original_sample=False).make(rows, OpContext()).source) == 0


def test_articles() -> None:
    assert mend_articles("a hour, an unicorn, an euro, a old a cat") == "an hour, a unicorn, a euro, an old a cat"
    assert mend_articles("plan AN old") == "plan AN old"


def test_stretches_between_tokens_are_rewritten() -> None:
    text = " <image>\n ab <|__dj__eoc|>cd<__dj__image>"
    assert outside_tokens(text, TOKENS, str.upper) == " <image>\n AB <|__dj__eoc|>CD<__dj__image>"


def test_things_and_relations() -> None:
    things, relations = things_and_relations(
        "Two men wearing blue shirts, and a dog under the old table. It is a STOP sign"
    )
    assert [(thing.head, thing.phrase, thing.number) for thing in things] == [
        ("men", "men", "two"),
        ("shirts", "blue shirts", ""),
        ("dog", "dog", ""),
        ("table", "old table", ""),
        ("sign", "STOP sign", ""),
    ]
    assert [(r.left.head, r.words, r.right.head) for r in relations] == [
        ("men", "wearing", "shirts"),
        ("dog", "under", "table"),
    ]
    assert things_and_relations("") == ([], [])


def test_keywords_prefer_long_phrases() -> None:
    assert keywords("a dog near an old wooden house and a red car", 2) == ["old wooden house", "red car"]
    assert keywords("", 3) == []


def test_facts_become_columns(batch: Any) -> None:
    operator = CaptionFactsMapper(max_keywords=1)
    operator.check()
    out = operator.apply(batch([CAPTION, ""]), OpContext())
    assert out.column("stats.keywords").to_pylist() == [["big dog"], []]
    assert out.column("stats.entities").to_pylist() == [["big dog", "grass", "old house"], []]
    assert out.column("stats.relations").to_pylist()[0][0] == "big dog | sitting on | grass"


def test_questions_have_one_answer() -> None:
    assert list(text_questions("a man wearing a blue shirt holding a ball")) == [
        ("What is the man wearing?", "blue shirt")
    ]
    assert list(text_questions("a red dog on the grass and two cats")) == [
        ("Where is the dog?", "on the grass"),
        ("How many cats are there?", "two"),
    ]
    assert list(text_questions("a dog on the grass, a dog in the house")) == []


def test_questions_become_child_rows(batch: Any) -> None:
    rows = batch([CAPTION, "a cat in a box", "x"], images=[["0.png"], [], []])
    made = QaFromTextGenerator(max_questions=1, hint="Be short.").make(rows, OpContext())
    texts = made.batch.column("text").to_pylist()
    assert made.source.tolist() == [0, 0, 1, 1, 2] and made.is_child.tolist() == [False, True, False, True, False]
    assert texts[1] == ("[[human]]: <image>\nWhere is the dog?\nBe short.\n[[gpt]]: on the grass <|__dj__eoc|>")
    assert texts[3].startswith("[[human]]: Where is the cat?\n")
    alone = QaFromTextGenerator(keep_original_sample=False).make(rows, OpContext())
    assert alone.is_child.tolist() == [True, True, False]
