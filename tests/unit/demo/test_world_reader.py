"""The rule-based reader, what sentences claim, and the compositional check built on both."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from bettersynth.core.errors import DataError
from bettersynth.demo.world import sign_fits, templates
from bettersynth.demo.world.composition import NEEDED, check, draw_prompts, overall, prompt_of, summary
from bettersynth.demo.world.facts import Facts, Group, judge, parse
from bettersynth.demo.world.language import caption
from bettersynth.demo.world.reader import read
from bettersynth.demo.world.reader_check import Damage, accuracy, agreement, degrade, draw_scenes
from bettersynth.demo.world.render import render
from bettersynth.demo.world.scene import Scene, Sign, Thing, sample_scene
from bettersynth.demo.world.vocab import BASE_VOCAB, EVAL_VOCAB


def test_drawn_and_slightly_damaged_pictures_are_read_without_a_mistake():
    table = accuracy(14, seed=3, damages=(Damage(), Damage(blur=1.0, noise=8)))
    assert {name: row["everything"] for name, row in table.items()} == {"as drawn": 1.0, "blur 1 px + noise 8": 1.0}


def test_every_kind_colour_and_number_is_told_apart():
    rng = random.Random(4)
    for kinds in (("ball", "cup", "star"), ("tree", "hat", "kite"), ("heart", "house", "boat"), ("car", "ball", "cup")):
        colours = rng.sample(["red", "orange", "yellow", "green", "blue", "purple", "white", "black"], 3)
        things = tuple(
            Thing(kind, colour, (row, row), 10 + row if kind in ("house", "boat", "car") else None)
            for row, (kind, colour) in enumerate(zip(kinds, colours, strict=True))
        )
        scene = Scene("room", things, (), rng.getrandbits(32))
        assert read(render(scene)).things == things


def test_sums_over_columns_are_those_of_the_pixels():
    rows = np.random.default_rng(0).normal(0, 40, (3, 26, 96, 3)).astype(np.float32)
    sums = sign_fits._Sums.of(rows)
    found = sign_fits._about_mean(*sums.between(np.array([0, 17, 95]), np.array([96, 60, 96])))
    for row in range(3):
        parts = (rows[row], rows[row, :, 17:60], rows[row, :, 95:])
        wanted = [float(((part - part.mean((0, 1))) ** 2).sum()) for part in parts]
        assert np.allclose(found[row], wanted, rtol=1e-4)
    board = np.array([[3.0, -5.0, 8.0]])
    place = sign_fits._PLACES.index((8, 4))
    seams = np.concatenate([rows[1, :, 8 + 16 * i - 1 : 8 + 16 * i + 1].reshape(-1, 3) for i in (1, 2, 3)])
    got = sign_fits._seams(sums, np.array([1]), np.array([place]), board)
    assert np.allclose(got, ((seams - board) ** 2).sum(), rtol=1e-4)


def test_letters_that_share_two_colours_are_fitted_by_least_squares():
    bank, rng = templates.letters(0.7), np.random.default_rng(1)
    picks, colours = [3, 11, 20, 7], np.array([[90.0, 80.0, -20.0], [-100.0, -90.0, 10.0]])
    slots = np.stack([bank.weights[:, pick].T @ colours for pick in picks]) + rng.normal(0, 5, (4, 364, 3))
    products = bank.products(slots)[:, : len(templates.LETTERS)].transpose(2, 0, 1, 3)[None]
    part = slice(0, len(templates.LETTERS))
    glyphs = (bank.gram[None, part], bank.inverse[None, part])
    fit = templates.common_fit(products, templates.squares(slots)[None], np.ones((1, 4), dtype=bool), glyphs)
    weights = np.concatenate([bank.weights[:, pick].T for pick in picks])
    wanted, rest, *_ = np.linalg.lstsq(weights, slots.reshape(-1, 3), rcond=None)
    assert fit.picks[0].tolist() == picks
    assert np.allclose(fit.colours[0], wanted, atol=1e-3) and np.isclose(fit.cost[0], rest.sum(), rtol=1e-4)


def test_no_sign_that_could_win_is_left_out():
    for scene in draw_scenes(6, 5):
        pixels = np.asarray(render(scene), dtype=np.float32) - 128
        found = sign_fits.scan(pixels, 0.0)
        every = sign_fits._fit(found, *np.indices(found.free.shape).reshape(3, -1))
        free = found.free.reshape(-1)
        assert (every.cost >= free - 1e-3 * free - 1.0).all()  # what is skipped by its bound has no better fit


def test_a_wrong_scene_is_noticed_part_by_part():
    scene = Scene(
        "beach", (Thing("ball", "red", (0, 0)), Thing("car", "blue", (0, 2), 42)), (Sign("STOP", 1, 8, 0),), 5
    )
    seen = read(render(scene))
    assert agreement(scene, seen).everything
    other = Scene(
        "beach", (Thing("ball", "green", (0, 1)), Thing("car", "blue", (0, 2), 43)), (Sign("SHOP", 1, 8, 0),), 5
    )
    found = agreement(other, seen)
    assert (found.objects, found.colours, found.counts, found.positions) == (True, False, True, False)
    assert (found.numbers, found.text, found.background, found.everything) == (False, False, True, False)


def test_pictures_of_nothing_and_of_something_else():
    assert read(Image.new("RGB", (96, 96), (128, 128, 128))).things == ()
    empty = read(render(Scene("snow", (), (), 1)))
    assert empty.things == () and empty.signs == () and empty.background == "snow"
    noise = read(degrade(Image.new("RGB", (96, 96), (128, 128, 128)), Damage(noise=60)))
    assert noise.things == () and noise.signs == ()


def test_pictures_of_another_size_are_read():
    scene = Scene("street", (Thing("star", "yellow", (1, 1)),), (), 9)
    assert read(render(scene).resize((192, 192), Image.Resampling.BICUBIC)).things == scene.things


def test_captions_are_understood_whole():
    rng = random.Random(2)
    for vocab in (BASE_VOCAB, EVAL_VOCAB):
        for _ in range(150):
            scene = sample_scene(rng, vocab)
            text = caption(scene, rng)
            facts = parse(text)
            assert sum(group.count for group in facts.groups) == len(scene.things), text
            assert set(facts.words) == {sign.word for sign in scene.signs}, text
            assert judge(facts, scene)["right"], text


@pytest.mark.parametrize(
    ("text", "false"),
    [
        ("a red ball", set()),
        ("a green ball", {"colour", "count"}),
        ("a red cup", {"object", "colour", "count"}),
        ("two red balls", {"count"}),
        ("a red ball at the top", {"position"}),
        ("a blue car with number 43", {"number"}),
        ("a red ball ; the sign says SHOP", {"text"}),
        ("a red ball in the snow", {"place"}),
    ],
)
def test_false_claims_are_told_by_part(text, false):
    things = (Thing("ball", "red", (0, 0)), Thing("car", "blue", (0, 2), 42))
    scene = Scene("beach", things, (Sign("STOP", 1, 8, 0),), 5)
    parts = judge(parse(text), scene)
    assert {name for name, is_true in parts.items() if not is_true} - {"right"} == false
    assert parts["right"] == (not false)


def test_prompts_are_held_out_and_repeatable():
    prompts = draw_prompts(40, seed=1)
    assert prompts == draw_prompts(40, seed=1) != draw_prompts(40, seed=2)
    assert len(prompts) == 200 and len({prompt.id for prompt in prompts}) == 200
    seen = {(group.colour, group.kind) for prompt in prompts for group in prompt.facts.groups}
    assert seen <= set(EVAL_VOCAB.combos) and not seen & set(BASE_VOCAB.combos)
    for prompt in prompts:
        assert prompt_of(prompt.id, prompt.text) == prompt and isinstance(prompt.facts, Facts)
    with pytest.raises(DataError, match="compositional"):
        prompt_of("00001", "a photo")
    with pytest.raises(DataError, match="eval, base"):
        draw_prompts(1, vocabulary="other")


def _scene_for(prompt, rng):
    cells = [(row, col) for row in (0, 2) for col in range(3)]
    things = []
    for group in prompt.facts.groups:
        for _ in range(group.count):
            things.append(Thing(group.kind, group.colour, group.cell or cells.pop()))
    row = next(row for row in range(3) if all(thing.cell[0] != row for thing in things))
    signs = tuple(Sign(word, row, 0, rng.randrange(8)) for word in prompt.facts.words)
    return Scene("forest", tuple(sorted(things, key=lambda thing: thing.cell)), signs, rng.getrandbits(32))


def test_right_pictures_pass_and_wrong_ones_fail():
    rng, prompts = random.Random(6), draw_prompts(2, seed=5)
    right = [check(prompt, render(_scene_for(prompt, rng))) for prompt in prompts]
    assert all(verdict.is_right and verdict.is_exact for verdict in right)
    table = summary(right)
    assert overall(table) == 1.0 and table["all"]["right"].of == 2 * len(NEEDED)
    assert table["single"]["text"].of == 0 and table["text"]["text"].value == 1.0
    blank = [check(prompt, read(render(Scene("snow", (), (), 3)))) for prompt in prompts]
    assert overall(summary(blank)) == 0.0 and summary(blank)["all"]["right"].interval[1] < 0.35
    single = next(prompt for prompt in prompts if prompt.category == "single")
    crowded = _scene_for(single, rng)
    crowded = Scene("forest", (Thing("hat", "black", (0, 0)), *crowded.things), (), 8)
    verdict = check(single, render(crowded))
    assert verdict.is_right and not verdict.is_exact


def test_counts_must_be_exact():
    prompt = prompt_of("counting-0", "two red balls")
    things = tuple(Thing("ball", "red", (0, col)) for col in range(3))
    assert check(prompt, render(Scene("room", things[:2], (), 1))).is_right
    assert not check(prompt, render(Scene("room", things, (), 1))).is_right
    assert Group(2, "red", "ball") in prompt.facts.groups


def test_scenes_for_the_table_come_from_both_vocabularies():
    combos = {thing.combo for scene in draw_scenes(20, 0) for thing in scene.things}
    assert combos & set(BASE_VOCAB.combos) and combos & set(EVAL_VOCAB.combos)
