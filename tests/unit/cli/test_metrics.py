"""``bettersynth metrics``: files in, tables and JSON out; and generate -> composition as one chain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bettersynth.demo.world.composition import prompt_of
from bettersynth.demo.world.render import render
from bettersynth.demo.world.scene import Scene, Thing


def _lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_texts(call, tmp_path):
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    said = _lines(
        tmp_path / "said.jsonl", [{"id": "b", "text": "two cups"}, {"id": "a", "text": "a red ball at night"}]
    )
    wanted = _lines(
        tmp_path / "wanted.jsonl",
        [{"id": "a", "references": ["a red ball at night", "x"]}, {"id": "b", "text": "two cups"}],
    )
    scores = {
        s["name"]: s for s in call("metrics", "texts", "--predictions", said, "--references", wanted, "--json").data
    }
    assert scores["rougeL"]["value"] == 1.0 and scores["bleu"]["value"] == pytest.approx(100.0)
    assert "sacrebleu" in call("metrics", "texts", "--predictions", said, "--references", wanted).out
    other = _lines(tmp_path / "other.jsonl", [{"id": "a", "text": "x"}])
    done = call("metrics", "texts", "--predictions", other, "--references", wanted, expect=1)
    assert "do not match" in done.err and "b" in done.err
    assert "--references" in call("metrics", "texts", "--predictions", said, expect=2).err
    words = ["metrics", "texts", "--predictions", said, "--references", wanted, "--metrics", "meteor"]
    assert "--wordnet DIR" in call(*words, expect=1).err


def test_texts_of_other_forms_are_read_or_named(call, tmp_path):
    pytest.importorskip("sacrebleu")
    said = _lines(tmp_path / "said.jsonl", [{"id": "a", "text": "two cups on a table"}])
    words = ["metrics", "texts", "--metrics", "bleu", "--predictions", said, "--references"]
    lists = _lines(tmp_path / "lists.jsonl", [{"id": "a", "text": ["x", "two cups on a table"]}])
    assert call(*words, lists, "--json").data[0]["value"] == pytest.approx(100.0)
    for rows, expected in (
        ([{"id": "a", "references": []}], "references"),
        ([{"id": "a", "txt": "x"}], "captions"),
        ([], "no lines"),
    ):
        assert expected in call(*words, _lines(tmp_path / "bad.jsonl", rows), expect=1).err
    assert "several for: a" in call(*words[:5], lists, "--references", said, expect=1).err
    (tmp_path / "plain.jsonl").write_text("two cups\n")
    assert ".txt" in call(*words, tmp_path / "plain.jsonl", expect=1).err


def test_flags_of_other_kinds_are_refused(call, tmp_path):
    refused = call("metrics", "reader", "--count", 1, "--clip=x", "--seed", 1, "--lang", "en", expect=2).err
    assert "not used by metrics reader: --clip" in refused and "--count, --seed" in refused
    assert "--out" in call("metrics", "reader", "--count", 1, "-o", "x", expect=2).err
    assert "at least 1" in call("metrics", "reader", "--count", 0, expect=2).err
    assert call("metrics", "prompts", "--per-category", 1, "-o", tmp_path / "p", "--json").data["prompts"] == 5


def test_pictures(call, tmp_path):
    rng = np.random.default_rng(0)
    for folder, level in (("a", 100), ("b", 160)):
        (tmp_path / folder).mkdir()
        for number in range(6):
            pixels = np.clip(rng.normal(level, 20, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    words = ["metrics", "pictures", "--extractor", "clip=fake", "--kid-subsets", 5]
    far = call(*words, "--generated", tmp_path / "a", "--reference", tmp_path / "b", "--json").data
    same = call(*words, "--generated", tmp_path / "a", "--reference", tmp_path / "a", "--json").data
    assert abs(same["fid"]) < 1e-6 < far["fid"] and abs(same["cmmd"]) < 1e-6
    assert far["kid_subsets"] == "5 x 6" and "6 pictures, digest" in far["generated"]
    assert "biased" in call(*words, "--generated", tmp_path / "a", "--reference", tmp_path / "b").out
    wrong = ["metrics", "pictures", "--extractor", f"inception={tmp_path}/gone.pth"]
    assert (
        "never downloaded" in call(*wrong, "--generated", tmp_path / "a", "--reference", tmp_path / "b", expect=1).err
    )


def test_pairs(call, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "x.png")
    pairs = _lines(tmp_path / "pairs.jsonl", [{"image": "x.png", "text": "a red ball"}] * 2)
    found = call("metrics", "pairs", "--pairs", pairs, "--clip", "fake", "--describe-with", "fake", "--json").data
    assert found["pairs"] == 2 and {"clip_score", "f1", "similarity"} <= set(found["rows"][0])
    assert "--clip" in call("metrics", "pairs", "--pairs", pairs, expect=2).err
    bad = _lines(tmp_path / "bad.jsonl", [{"text": "a red ball"}])
    assert "bad.jsonl:1" in call("metrics", "pairs", "--pairs", bad, "--clip", "fake", expect=1).err


def test_composition_of_generated_pictures(call, tmp_path):
    call("metrics", "prompts", "--per-category", 2, "--seed", 3, "--out", tmp_path / "prompts.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 10 and all(row["output"] == "image" for row in rows)
    folder, results = tmp_path / "made", []
    folder.mkdir()
    for number, row in enumerate(rows[:2]):
        (group,) = prompt_of(row["id"], row["prompt"]).facts.groups
        scene = Scene("room", (Thing(group.kind if not number else "hat", group.colour, (1, 1)),), (), 4)
        render(scene).save(folder / f"{row['id']}-0.png")
        results.append({"id": f"{row['id']}-0", "outputs": [{"kind": "image", "image": f"{row['id']}-0.png"}]})
    _lines(folder / "results.jsonl", results)
    words = ["metrics", "composition", "--generated", folder, "--prompts", tmp_path / "prompts.jsonl"]
    done = call(*words, "--json", "--out", tmp_path / "verdicts.jsonl")
    found = done.data
    assert "8 prompts" in done.err and rows[2]["id"] in done.err
    kinds = {prompt_of(row["id"], row["prompt"]).facts.groups[0].kind for row in rows[:2]}
    assert found["overall"] == (0.5 if "hat" not in kinds else 1.0)
    assert found["categories"]["single"]["right"]["of"] == 2
    assert len((tmp_path / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert "mean over categories" in call(*words).out
    assert "nothing generated" in call(*words[:3], tmp_path, *words[4:], expect=1).err
    foreign = _lines(tmp_path / "foreign.jsonl", [{"id": row["id"], "prompt": "a photo"} for row in rows])
    assert "compositional" in call(*words[:5], foreign, expect=1).err


def test_a_model_can_be_checked_from_end_to_end(bagel_folder, call):
    call("metrics", "prompts", "--per-category", 1, "--out", "p.jsonl")
    call("generate", "--model", bagel_folder, "--prompts", "p.jsonl", "--steps", 2, "--size", "24x24", "-o", "made")
    found = call("metrics", "composition", "--generated", "made", "--prompts", "p.jsonl", "--json").data
    assert found["overall"] == 0.0 and found["categories"]["all"]["right"]["of"] == 5
    back = call("metrics", "pairs", "--generated", "made", "--prompts", "p.jsonl", "--describe-with", bagel_folder)
    assert "f1" in back.out


def test_the_reader_says_how_well_it_reads(call):
    table = call("metrics", "reader", "--count", 1, "--json").data
    assert table["as drawn"]["everything"] == 1.0 and len(table) == 11


def test_places_without_pictures_or_pairs_are_named(call, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    said = call("metrics", "pairs", "--pairs", tmp_path / "empty.jsonl", "--clip", tmp_path, expect=1).err
    assert "no lines in this file" in said and "empty.jsonl" in said
    words = ("metrics", "pictures", "--generated", tmp_path / "gone", "--reference", tmp_path)
    assert "folder not found" in call(*words, "--extractor", f"clip={tmp_path}", expect=1).err
