"""Records of the demo world for joint training: drawing, describing, answering, and both in one conversation.

Pictures are made of the base vocabulary only; the evaluation's combinations of colour and kind are never shown. Objects
carry no number plates. A prompt that names no positions gets a plain layout (one object in the middle, two beside each
other, ...); all other pictures are laid out at random, and their texts say where things are.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import write_atomic
from bettersynth.core.seed import generator
from bettersynth.demo.world.language import PLACES, POSITIONS, article, ask_any, caption, plural
from bettersynth.demo.world.render import render
from bettersynth.demo.world.scene import Scene, Thing, sample_scene
from bettersynth.demo.world.vocab import BACKGROUNDS, BASE_VOCAB, NUMBER_WORDS, Vocabulary

MIX = {"draw": 0.57, "describe": 0.28, "answer": 0.11, "story": 0.04}
"""Shares of the kinds of records."""
DESCRIBE = ("describe the picture", "what do we see", "what is in the picture")
LIST = "what objects are there"
"""Asks for every object of a mosaic, row by row."""
DRAW = ("draw", "make a picture of", "show")
QUESTIONS = {"colour": 1.0, "kind": 1.0, "count": 1.0, "position": 0.7, "scene": 0.5, "sign": 0.3}
"""Kinds of questions with their weights."""
LAYOUTS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((1, 1),),
    2: ((1, 0), (1, 2)),
    3: ((1, 0), (1, 1), (1, 2)),
    4: ((0, 0), (0, 2), (2, 0), (2, 2)),
}
"""(row, column) of so many objects whose prompt names no position."""
_PROMPTED = {"single": 0.2, "two": 0.32, "counting": 0.28, "placed": 0.2}
"""Drawing with a short prompt: what it asks for. ``placed`` names positions."""
_SHORT_PROMPTS = 0.88
"""Share of drawing records with a short prompt; the others have a caption of a scene of the world."""
_SENTENCES = 0.15
"""Share of drawing records that ask in a sentence; the others are the bare prompt."""
_WITH_PLACE = 0.3
_PLAIN_DESCRIBED = 0.5
"""Share of the described pictures without mosaic that show what a short prompt would ask for: fewer things to name."""
_ROWS = 0.4
"""Share of the mosaics with three rows of three alike, from which the plurals are learnt."""
_CROWDS = 0.5
"""Share of the described mosaics that leave cells empty and are described as usual pictures are."""
_CROWD = (4, 8)
"""Objects of those, from and to."""
_TWO_PICTURES = 0.5
"""Share of the stories in which a second picture is drawn."""
_WITH_SIGN = 0.15
_PER_FOLDER = 1000


def write_records(folder: Path, *, count: int, seed: int = 0, name: str = "train") -> dict[str, int]:
    """Write ``NAME.jsonl`` and its pictures below ``folder``; the same arguments give the same bytes.

    Returns:
        Records by kind.
    """
    lines: list[str] = []
    kinds: Counter[str] = Counter()
    for number in range(count):
        path = f"images/{name}/{number // _PER_FOLDER:03d}/{number:06d}"
        kind, scenes, record = draw_record(number, (f"{path}.png", f"{path}b.png"), seed=seed, name=name)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        for place, scene in scenes.items():
            render(scene).save(folder / place)
        kinds[kind] += 1
        lines.append(json.dumps({"id": f"{name}-{number:06d}", **record}))
    write_atomic(folder / f"{name}.jsonl", ("\n".join(lines) + "\n").encode())
    return dict(sorted(kinds.items()))


def draw_record(
    number: int,
    paths: tuple[str, str],
    *,
    seed: int,
    name: str = "train",
    mosaics: float = 0.0,
    mix: Mapping[str, float] = MIX,
) -> tuple[str, dict[str, Scene], dict[str, Any]]:
    """The record of one number.

    Args:
        number: which one.
        paths: where its first picture is to be, and its second if it has one.
        seed, name: of the data set.
        mosaics: share of drawing and describing records that show many objects, most of them nine, listed row by row:
            shapes are learnt faster from them, because most of a usual picture is background.
        mix: shares of the kinds of records.

    Returns:
        Kind, scenes by path, and the record.
    """
    rng = generator(seed, "demo-bagel", name, number)
    kind = rng.choices(list(mix), list(mix.values()))[0]
    if kind in ("draw", "describe") and rng.random() < mosaics:
        if kind == "describe" and rng.random() < _CROWDS:
            scene = crowd(rng)
            return kind, {paths[0]: scene}, make_record(kind, scene, describe(scene), paths[0], rng)
        scene, text = mosaic(rng)
        if kind == "draw":
            return kind, {paths[0]: scene}, {"text_prompt": text, "image_path": paths[0]}
        turns = (_shown("user", paths[0]), _say("user", LIST), _say("assistant", text))
        return kind, {paths[0]: scene}, _turns(*turns)
    if kind in ("draw", "story") and rng.random() < _SHORT_PROMPTS:
        scene, text = prompted_scene(rng)
    else:
        is_plain = kind == "describe" and rng.random() < _PLAIN_DESCRIBED
        scene = prompted_scene(rng)[0] if is_plain else draw_scene(rng)
        text = caption(scene, rng) if kind == "draw" else describe(scene)
    record = make_record(kind, scene, text, paths[0], rng)
    scenes = {paths[0]: scene}
    if kind == "story" and rng.random() < _TWO_PICTURES:
        scenes[paths[1]], text = prompted_scene(rng)
        record["conversations"] += [_say("user", f"{rng.choice(DRAW)} {text}"), _shown("assistant", paths[1])]
    return kind, scenes, record


def draw_scene(rng: random.Random, vocab: Vocabulary = BASE_VOCAB) -> Scene:
    """A scene of the world without number plates; few have a sign, as most prompts ask for none."""
    scene = sample_scene(rng, vocab, max_signs=0)
    if rng.random() < _WITH_SIGN:
        scene = sample_scene(rng, vocab, min_signs=1, max_signs=1)
    return replace(scene, things=tuple(replace(thing, number=None) for thing in scene.things))


def mosaic(rng: random.Random, vocab: Vocabulary = BASE_VOCAB) -> tuple[Scene, str]:
    """Nine objects, one in every cell, and their names row by row; or three rows of three alike."""
    is_rows = rng.random() < _ROWS
    combos = [_combo(rng, vocab) for _ in range(3 if is_rows else 9)]
    shown = [combos[cell[0]] for cell in POSITIONS] if is_rows else combos
    things = [Thing(kind, colour, cell) for (colour, kind), cell in zip(shown, POSITIONS, strict=True)]
    if is_rows:
        text = " ".join(f"three {colour} {plural(kind)}" for colour, kind in combos)
    else:
        text = " ".join(f"{colour} {kind}" for colour, kind in combos)
    return Scene(rng.choice(BACKGROUNDS), tuple(things), (), rng.getrandbits(32)), text


def crowd(rng: random.Random, vocab: Vocabulary = BASE_VOCAB) -> Scene:
    """Many objects in some of the cells."""
    cells = sorted(rng.sample(list(POSITIONS), rng.randint(*_CROWD)))
    things = tuple(Thing(kind, colour, cell) for cell in cells for colour, kind in [_combo(rng, vocab)])
    return Scene(rng.choice(BACKGROUNDS), things, (), rng.getrandbits(32))


def prompted_scene(rng: random.Random, vocab: Vocabulary = BASE_VOCAB) -> tuple[Scene, str]:
    """A scene that shows what a short prompt asks for and nothing else, and that prompt."""
    category = rng.choices(list(_PROMPTED), list(_PROMPTED.values()))[0]
    combos = [_combo(rng, vocab)]
    count = rng.randint(2, 4) if category == "counting" else 1
    if category == "two" or (category == "placed" and rng.random() < 0.5):
        while len(combos) < 2:
            other = _combo(rng, vocab)
            combos += [other] if other[0] != combos[0][0] and other[1] != combos[0][1] else []
    shown = combos * count
    cells = list(LAYOUTS[len(shown)])
    if category == "placed":
        cells = rng.sample(list(POSITIONS), len(shown))
    things = [Thing(kind, colour, cell) for (colour, kind), cell in zip(shown, cells, strict=True)]
    place = rng.choice(BACKGROUNDS)
    if count > 1:
        text = f"{NUMBER_WORDS[count]} {combos[0][0]} {plural(combos[0][1])}"
    else:
        text = " and ".join(_single(thing, is_placed=category == "placed") for thing in things)
    if rng.random() < _WITH_PLACE:
        text += f" {PLACES[place]}"
    ordered = tuple(sorted(things, key=lambda thing: thing.cell))
    return Scene(place, ordered, (), rng.getrandbits(32)), text


def _combo(rng: random.Random, vocab: Vocabulary) -> tuple[str, str]:
    return rng.choice(vocab.combos)


def _single(thing: Thing, *, is_placed: bool) -> str:
    phrase = f"{article(thing.colour)} {thing.colour} {thing.kind}"
    return f"{phrase} at the {POSITIONS[thing.cell]}" if is_placed else phrase


def describe(scene: Scene) -> str:
    """The one description of a scene that is taught: objects as read, a lone one with its position, place, sign."""
    phrases = []
    for group in scene.groups():
        first = group[0]
        if len(group) == 1:
            phrases.append(_single(first, is_placed=True))
        else:
            phrases.append(f"{NUMBER_WORDS[len(group)]} {first.colour} {plural(first.kind)}")
    text = f"{' and '.join(phrases)} {PLACES[scene.background]}"
    return " ; ".join([text, *(f"the sign says {sign.word}" for sign in scene.signs)])


def make_record(kind: str, scene: Scene, text: str, path: str, rng: random.Random) -> dict[str, Any]:
    """A record of one of :data:`MIX`'s kinds about a scene with its text, whose picture is at ``path``."""
    if kind == "draw" and rng.random() >= _SENTENCES:
        return {"text_prompt": text, "image_path": path}
    if kind == "draw":
        return _turns(_say("user", f"{rng.choice(DRAW)} {text}"), _shown("assistant", path))
    if kind == "describe":
        return _turns(_shown("user", path), _say("user", rng.choice(DESCRIBE)), _say("assistant", text))
    question = ask_any(scene, rng, QUESTIONS)
    if kind == "answer":
        return _turns(_shown("user", path), _say("user", question.text), _say("assistant", question.answer))
    return _turns(
        *(_say("user", f"{rng.choice(DRAW)} {text}"), _shown("assistant", path)),
        *(_say("user", question.text), _say("assistant", question.answer)),
    )


def _turns(*turns: dict[str, str]) -> dict[str, Any]:
    return {"conversations": list(turns)}


def _say(role: str, text: str) -> dict[str, str]:
    return {"role": role, "type": "text", "content": text}


def _shown(role: str, path: str) -> dict[str, str]:
    return {"role": role, "type": "image", "image_path": path}
