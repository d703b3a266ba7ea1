"""Scenes, vocabulary, captions and questions of the demo world."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from bettersynth.demo.world.language import (
    MAX_CAPTION_WORDS,
    OPTION_LETTERS,
    POSITIONS,
    QUESTION_KINDS,
    ask,
    ask_any,
    caption,
    vocabulary_words,
    with_options,
)
from bettersynth.demo.world.scene import (
    IMAGE_PX,
    PATCH_PX,
    PATCHES,
    Scene,
    Sign,
    Thing,
    letter_columns,
    patch_words,
    sample_scene,
    textual_scene,
)
from bettersynth.demo.world.vocab import BASE_VOCAB, COLOURS, EVAL_VOCAB, KINDS, LETTERS, Vocabulary

VOCABS = (BASE_VOCAB, EVAL_VOCAB)


def scenes(vocab: Vocabulary, count: int = 300) -> list[Scene]:
    rng = random.Random(5)
    return [sample_scene(rng, vocab) for _ in range(count)]


def test_vocabularies_share_parts_but_no_word_and_no_combination() -> None:
    assert not set(BASE_VOCAB.words) & set(EVAL_VOCAB.words)
    assert not set(BASE_VOCAB.combos) & set(EVAL_VOCAB.combos)
    assert len(BASE_VOCAB.words) >= 400 and 40 <= len(EVAL_VOCAB.words) <= 60
    for vocab in VOCABS:
        assert {kind for _, kind in vocab.combos} == set(KINDS)
        assert {colour for colour, _ in vocab.combos} == set(COLOURS)
        assert set("".join(vocab.words)) == set(LETTERS)
        assert {len(word) for word in vocab.words} == {3, 4, 5, 6}


def test_random_letter_strings_never_show_an_evaluation_word() -> None:
    rng = random.Random(0)
    drawn = {BASE_VOCAB.draw_word(rng) for _ in range(5000)}
    assert not drawn & set(EVAL_VOCAB.words)
    assert drawn - set(BASE_VOCAB.words), "some signs must show random strings"


@pytest.mark.parametrize("vocab", VOCABS, ids=lambda v: v.name)
def test_scene_fits_its_picture(vocab: Vocabulary) -> None:
    for scene in scenes(vocab):
        cells = [thing.cell for thing in scene.things]
        assert len(set(cells)) == len(cells) and 1 <= len(cells) <= 4
        assert not {cell[0] for cell in cells} & {sign.row for sign in scene.signs}
        for sign in scene.signs:
            assert sign.x_px % 4 == 0 and 0 <= sign.x_px <= IMAGE_PX - PATCH_PX * len(sign.word)
            columns = letter_columns(sign)
            assert list(columns) == list(range(columns[0], columns[0] + len(sign.word)))
        assert {thing.combo for thing in scene.things} <= set(vocab.combos)


def test_numbers_of_objects_are_balanced() -> None:
    counts = Counter(len(scene.things) for scene in scenes(EVAL_VOCAB, 2000))
    assert min(counts[n] for n in (1, 2, 3, 4)) > 0.18 * 2000


def test_textual_scene_names_every_patch() -> None:
    scene = Scene(
        "snow",
        (Thing("ball", "red", (0, 0)), Thing("car", "blue", (2, 1), 47)),
        (Sign("STOP", 1, 8, 0),),
        0,
    )
    words = textual_scene(scene)
    rows = [words[i : i + PATCHES] for i in range(0, len(words), PATCHES)]
    assert rows[0][:3] == ["red", "ball", "snow"] and rows[1][:2] == ["red", "ball"]
    assert rows[2] == ["snow", "S", "T", "O", "P", "snow"]
    assert rows[3] == ["snow", "sign", "sign", "sign", "sign", "snow"]
    assert rows[4][2:4] == ["blue", "car"] and rows[5][2:4] == ["4", "7"]
    shuffled = textual_scene(scene, random.Random(1))
    for word, allowed in zip(shuffled, patch_words(scene), strict=True):
        assert word in allowed
    assert {"red", "ball"} <= {shuffled[i] for i in (0, 1, 6, 7)}


@pytest.mark.parametrize("vocab", VOCABS, ids=lambda v: v.name)
def test_captions_are_short_and_name_all_objects_and_signs(vocab: Vocabulary) -> None:
    rng = random.Random(1)
    known = set(vocabulary_words())
    for scene in scenes(vocab):
        text = caption(scene, rng)
        words = text.split()
        assert len(words) <= MAX_CAPTION_WORDS
        for group in scene.groups():
            name = group[0].kind + ("s" if len(group) > 1 else "")
            assert f"{group[0].colour} {name}" in text
        for sign in scene.signs:
            assert sign.word in words
        assert {word for word in words if not word.isupper() and not word.isdigit()} <= known


def test_answers_follow_from_the_scene() -> None:
    rng = random.Random(2)
    seen: Counter[str] = Counter()
    for scene in scenes(EVAL_VOCAB, 600):
        for kind in QUESTION_KINDS:
            question = ask(scene, kind, rng)
            if question is None:
                continue
            seen[kind] += 1
            words = question.text.rstrip("?").split()
            if kind == "sign":
                assert question.answer in {sign.word for sign in scene.signs}
            elif kind in ("colour", "number", "position"):
                (thing,) = scene.of_kind(words[-1])
                truth = {"colour": thing.colour, "number": str(thing.number), "position": POSITIONS[thing.cell]}
                assert question.answer == truth[kind]
            elif kind == "relation":
                (first,), (second,) = scene.of_kind(words[3]), scene.of_kind(words[-1])
                rows, cols = first.cell[0] - second.cell[0], first.cell[1] - second.cell[1]
                expected = {(0, -1): "left", (0, 1): "right", (-1, 0): "above", (1, 0): "below"}
                assert question.answer == expected[((rows > 0) - (rows < 0), (cols > 0) - (cols < 0))]
            elif kind == "scene":
                assert question.answer == scene.background
    assert all(seen[kind] >= 100 for kind in QUESTION_KINDS)


def test_options_hold_one_truth_and_letters_are_balanced() -> None:
    rng = random.Random(3)
    letters: Counter[str] = Counter()
    for scene in scenes(EVAL_VOCAB, 400):
        question = ask_any(scene, rng)
        choice = with_options(question, scene, EVAL_VOCAB, rng)
        assert len(set(choice.options)) == 4 and choice.options.count(question.answer) == 1
        assert choice.options[OPTION_LETTERS.index(choice.target)] == question.answer
        assert f"\n{choice.target}. {question.answer}\n" in choice.prompt()
        letters[choice.letter] += 1
        assert with_options(question, scene, EVAL_VOCAB, rng, "C").letter == "C"
    assert min(letters.values()) > 60
