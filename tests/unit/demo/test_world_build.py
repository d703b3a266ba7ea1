"""Pictures, noise classes and the files of a demo workspace."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bettersynth.core.fingerprint import digest_file
from bettersynth.demo.world import build as world
from bettersynth.demo.world.build import DEMO, QUICK, build, make_instructions, make_pool
from bettersynth.demo.world.language import OPTION_LETTERS
from bettersynth.demo.world.noise import NOISE_CLASSES, POOL_MIX, make_pair, mojibake
from bettersynth.demo.world.render import render, render_array
from bettersynth.demo.world.scene import Scene, Sign, Thing, sample_scene
from bettersynth.demo.world.vocab import BACKGROUNDS, COLOURS, EVAL_VOCAB, KINDS, LETTERS


def digests(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): digest_file(p) for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ws")
    build(root, sizes=QUICK, seed=7)
    return root


def test_every_thing_and_letter_can_be_drawn() -> None:
    blank = render_array(Scene("room", (), (), 1)).astype(int)
    for kind in KINDS:
        for colour in COLOURS:
            picture = render_array(Scene("room", (Thing(kind, colour, (1, 1)),), (), 1)).astype(int)
            assert np.abs(picture - blank)[32:64, 32:64].max() > 60
    for style in range(8):
        shown = {render_array(Scene("snow", (), (Sign(letter, 1, 40, style),), 1)).tobytes() for letter in LETTERS}
        assert len(shown) == len(LETTERS)
    assert len({render_array(Scene(name, (), (), 1)).tobytes() for name in BACKGROUNDS}) == len(BACKGROUNDS)


def test_same_scene_same_pixels_and_its_seed_matters() -> None:
    scene = sample_scene(random.Random(0), EVAL_VOCAB)
    assert render(scene).tobytes() == render(scene).tobytes()
    other = Scene(scene.background, scene.things, scene.signs, scene.seed + 1)
    assert render(scene).tobytes() != render(other).tobytes()
    assert render(scene).size == (96, 96) and render(scene).mode == "RGB"


def test_noise_classes_do_what_they_say() -> None:
    rng = random.Random(0)
    for _ in range(30):
        wrong = make_pair("wrong_text", EVAL_VOCAB, rng)
        said = {word for word in wrong.text.split() if word.isupper()}
        assert said and not said & {sign.word for sign in wrong.scene.signs}
        other = make_pair("mismatched", EVAL_VOCAB, rng)
        assert all(f"{t.colour} {t.kind}" not in other.text for t in other.scene.things)
        vague = make_pair("vague", EVAL_VOCAB, rng).text
        assert not any(kind in vague for kind in KINDS)
        assert len(make_pair("too_long", EVAL_VOCAB, rng).text.split()) > 60
        marked = make_pair("html", EVAL_VOCAB, rng).text
        assert re.match(r"<(\w+)>.*</\1>$", marked)


def test_mojibake_can_be_undone() -> None:
    rng = random.Random(1)
    text = "a red ball ; the sign says STOP"
    broken = mojibake(text, rng)
    assert broken != text and "\u00e2" in broken
    # The way back: the bytes as Windows-1252 (its five holes as themselves), read as UTF-8.
    raw = b"".join(bytes([ord(c)]) if ord(c) < 256 else c.encode("cp1252") for c in broken)
    fixed = raw.decode("utf-8").replace("\u00a0", " ").replace("\u2013", ";")
    assert re.sub("[\u201c\u201d]", "", fixed) == text


def test_pool_has_the_stated_shares_and_true_duplicates() -> None:
    pairs = make_pool(400, random.Random(2))
    counts = Counter(pair.noise for pair in pairs)
    assert len(pairs) == 400 and set(counts) == set(NOISE_CLASSES) == set(POOL_MIX)
    for noise, share in POOL_MIX.items():
        assert abs(counts[noise] - 400 * share) <= 1
    assert sum(POOL_MIX.values()) == pytest.approx(1)
    clean = {(pair.scene, pair.text) for pair in pairs if pair.noise == "clean"}
    assert all((pair.scene, pair.text) in clean for pair in pairs if pair.noise == "duplicate")


def test_same_seed_same_bytes(workspace: Path, tmp_path: Path) -> None:
    build(tmp_path, sizes=QUICK, seed=7)
    assert digests(tmp_path) == digests(workspace)
    build(tmp_path, sizes=QUICK, seed=8)
    again = digests(tmp_path)
    pool = f"{world.POOL_DIR}/{world.POOL_FILE}"
    assert again[pool] != digests(workspace)[pool]


def test_pool_files_agree(workspace: Path) -> None:
    folder = workspace / world.POOL_DIR
    rows = [json.loads(line) for line in (folder / world.POOL_FILE).read_text(encoding="utf-8").splitlines()]
    originals = json.loads((folder / world.POOL_QUESTIONS_FILE).read_text(encoding="utf-8"))
    labels = [json.loads(line) for line in (workspace / "hidden/noise_labels.jsonl").read_text().splitlines()]
    assert len(rows) == len(originals) == len(labels) == QUICK.pool
    requests = set()
    for row, original, label in zip(rows, originals, labels, strict=True):
        assert set(row) == {"id", "images", "text"} and row["id"] == original["id"] == label["id"]
        assert row["images"] == [original["image"]] and (folder / original["image"]).is_file()
        human, reply = original["conversations"]
        assert human["value"].count("<image>") == 1 and human["from"] == "human" and reply["from"] == "gpt"
        assert row["text"] == f"<__dj__image>\n{reply['value']} <|__dj__eoc|>"
        requests.add(human["value"].replace("<image>", "").strip())
    assert len(requests) >= 8
    assert not any("noise" in row for row in rows)
    noise = {label["id"]: label["noise"] for label in labels}
    copies = {label["id"]: label["copy_of"] for label in labels if "copy_of" in label}
    assert {row for row, kind in noise.items() if "duplicate" in kind} == set(copies)
    assert {noise[first] for first in copies.values()} == {"clean"}


def test_instruction_letters_are_balanced_and_reading_is_rare() -> None:
    made = make_instructions(400, random.Random(3))
    letters = Counter(question.letter for _, question in made if question.options)
    assert set(letters) == set(OPTION_LETTERS) and max(letters.values()) - min(letters.values()) <= 1
    kinds = Counter(question.kind for _, question in made)
    assert kinds["sign"] + kinds["number"] <= 0.12 * 400


def test_instruction_file_is_llava(workspace: Path) -> None:
    folder = workspace / world.INSTRUCT_DIR
    records = json.loads((folder / world.INSTRUCT_FILE).read_text(encoding="utf-8"))
    assert len(records) == QUICK.instruct
    for record in records:
        assert set(record) == {"id", "image", "conversations"} and (folder / record["image"]).is_file()
        human, reply = record["conversations"]
        assert human["value"].startswith("<image>\n") and reply["value"]
        assert human["value"].endswith("directly.") == (reply["value"] in OPTION_LETTERS)


def annotations(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "TextVQA_0.5.1_val.json").read_text(encoding="utf-8"))["data"]


@pytest.mark.parametrize(("part", "count"), [("eval", QUICK.textvqa), ("eval_dev", QUICK.dev_textvqa)])
def test_textvqa_files(workspace: Path, part: str, count: int) -> None:
    folder = workspace / "toolkit" / part / "textvqa"
    data = annotations(folder)
    with_ocr = [json.loads(line) for line in (folder / "llava_textvqa_val_v051_ocr.jsonl").read_text().splitlines()]
    plain = [json.loads(line) for line in (folder / "llava_textvqa_val_v051.jsonl").read_text().splitlines()]
    assert len(data) == len(with_ocr) == len(plain) == count
    keys = {(entry["image_id"], entry["question"].lower()) for entry in data}
    assert len(keys) == count
    for hinted, bare in zip(with_ocr, plain, strict=True):
        lines = hinted["text"].split("\n")
        assert len(lines) == 3 and lines[1].startswith("Reference OCR token: ")
        assert bare["text"] == f"{lines[0]}\n{lines[2]}"
        assert (hinted["question_id"], lines[0].lower()) in keys
        assert (folder / "train_images" / hinted["image"]).is_file()
    for entry in data:
        answers = Counter(entry["answers"])
        assert answers.total() == 10 and answers.most_common(1)[0][1] >= 7


def test_development_split_shares_nothing_with_the_evaluation(workspace: Path) -> None:
    first, second = (annotations(workspace / "toolkit" / part / "textvqa") for part in ("eval", "eval_dev"))
    assert not {e["image_id"] for e in first} & {e["image_id"] for e in second}


def test_mmbench_rotations(workspace: Path) -> None:
    path = workspace / "toolkit/eval/mmbench/mmbench_dev_20230712.tsv"
    csv.field_size_limit(10**7)
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert len(rows) == 4 * QUICK.mmbench
    by_index = {int(row["index"]): row for row in rows}
    for index in range(QUICK.mmbench):
        turns = [by_index[index + 10**6 * turn] for turn in range(4)]
        assert {row[row["answer"]] for row in turns} == {turns[0][turns[0]["answer"]]}
        assert sorted(row["answer"] for row in turns) == list(OPTION_LETTERS)
        assert len({row["image"] for row in turns}) == 1 and all(row["split"] == "dev" for row in turns)
    picture = Image.open(io.BytesIO(base64.b64decode(rows[0]["image"])))
    assert picture.size == (96, 96)
    letters = Counter(row["answer"] for row in rows[: QUICK.mmbench])
    assert set(letters.values()) == {QUICK.mmbench // 4}
    assert len({row["l2-category"] for row in rows}) == 3


def test_chance_levels_are_written_with_their_method(workspace: Path) -> None:
    chance = json.loads((workspace / "hidden/chance.json").read_text())["eval"]
    assert chance["mmbench"]["majority_letter"] == 0.25
    assert 0 < chance["textvqa"]["majority"] < 0.35 and chance["textvqa"]["method"]


def test_presets_are_ordered() -> None:
    assert QUICK.pool < DEMO.pool and DEMO.textvqa == DEMO.mmbench == 400
