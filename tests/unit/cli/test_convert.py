"""Both conversions, and sampling down as the challenge kit does."""

import json
import random

import pytest
from PIL import Image


@pytest.fixture
def seed(tiny_world):
    return tiny_world / "input" / "pretrain_stage_1_demo"


def test_to_llava_restores_questions_by_id_and_back(call, seed, tmp_path):
    rows, questions = seed / "mgm_pretrain_stage_1_demo.jsonl", seed / "stage_1.json"
    out = tmp_path / "llava.json"
    facts = call("convert", "dj-to-llava", "--input", rows, "--output", out, "--original", questions, "--json").data
    assert facts["questions_restored"] and facts["rows_out"] == 16
    made, original = json.loads(out.read_text()), json.loads(questions.read_text())
    assert [r["conversations"][0] for r in made] == [r["conversations"][0] for r in original]
    back = tmp_path / "rows.jsonl"
    call("convert", "llava-to-dj", "--input", out, "--output", back, "--only-caption", "--image-token", "<image>")
    first = json.loads(back.read_text().splitlines()[0])
    assert first["text"].startswith("<image>\n") and first["text"].endswith(" <|__dj__eoc|>")
    full = tmp_path / "full.jsonl"
    call("convert", "llava-to-dj", "--input", out, "--output", full)
    again = tmp_path / "again.json"
    call("convert", "dj-to-llava", "--input", full, "--output", again, "--no-restore-questions")
    assert [r["conversations"] for r in json.loads(again.read_text())] == [r["conversations"] for r in made]


def test_captions_without_the_original_are_refused_with_the_way_out(call, seed, tmp_path):
    rows = seed / "mgm_pretrain_stage_1_demo.jsonl"
    error = call("convert", "dj-to-llava", "--input", rows, "--output", tmp_path / "o.json", expect=1).err
    assert "--original stage_1.json" in error and not (tmp_path / "o.json").exists()


def test_own_captions_get_a_question_drawn_by_their_id(call, tmp_path):
    from bettersynth.formats.llava import CAPTION_REQUESTS

    rows, out = tmp_path / "rows.jsonl", tmp_path / "o.json"
    texts = [f"<__dj__image>\ncat {number} <|__dj__eoc|>" for number in range(12)]
    texts += ["[[human]]: <image>\nwhat?\n[[gpt]]: a cat <|__dj__eoc|>"]
    lines = [json.dumps({"id": f"r{number}", "images": ["a.png"], "text": text}) for number, text in enumerate(texts)]
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ("convert", "dj-to-llava", "--input", rows, "--output", out)
    assert "12 rows had no question: one of the kit's caption requests each" in call(*words).out
    made = {record["id"]: [turn["value"] for turn in record["conversations"]] for record in json.loads(out.read_text())}
    asked = {made[f"r{number}"][0].removeprefix("<image>\n") for number in range(12)}
    assert 3 < len(asked) <= len(CAPTION_REQUESTS) and asked <= set(CAPTION_REQUESTS)
    assert made["r3"][1] == "cat 3" and made["r12"] == ["<image>\nwhat?", "a cat"]
    rows.write_text("\n".join(reversed(lines[:12])) + "\n", encoding="utf-8")  # the order changes no question
    assert call(*words, "--no-restore-questions", "--json").data["questions_drawn"] == 12
    assert {record["id"]: record["conversations"][0]["value"] for record in json.loads(out.read_text())} == {
        name: turns[0] for name, turns in made.items() if name != "r12"
    }


def test_rows_of_a_challenge_recipe_get_no_question(call, tmp_path):
    rows, recipe = tmp_path / "rows.jsonl", tmp_path / "r.yaml"
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows.write_text('{"id": "a", "images": ["a.png"], "text": "<image>\\na cat"}\n', encoding="utf-8")
    recipe.write_text(f"dataset_path: {rows}\nprocess:\n  - text_length_filter: {{min_len: 1}}\n", encoding="utf-8")
    for track, code in (("challenge", 1), ("open", 0)):
        call("process", recipe, "--out", tmp_path / track, "--np", 1, "--set", f"track={track}")
        made = tmp_path / track / "processed_data.jsonl"
        call("convert", "dj-to-llava", "--input", made, "--output", tmp_path / track / "o.json", expect=code)
        assert (tmp_path / track / "o.json").exists() == (track == "open")


def test_what_cannot_be_converted_comes_with_the_next_command(call, tmp_path):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "o.json"
    rows.write_text('{"id": "a", "text": "x"}\n' * 2, encoding="utf-8")
    lines = call("convert", "llava-to-dj", "--input", rows, "--output", out, expect=1).err
    assert "JSON lines" in lines and f"convert dj-to-llava --input {rows} --output {tmp_path / 'rows.json'}" in lines
    gone = call("convert", "dj-to-llava", "--input", tmp_path / "row.jsonl", "--output", out, expect=1).err
    assert "no such file" in gone and "did you mean 'rows.jsonl'?" in gone
    rows.write_text("", encoding="utf-8")
    empty = call("convert", "dj-to-llava", "--input", rows, "--output", out, expect=1).err
    assert "there is no row to convert" in empty and not out.exists()


def test_a_new_id_stops_the_conversion(call, seed, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "new", "text": "a dog", "images": []}\n', encoding="utf-8")
    words = ("--input", rows, "--output", tmp_path / "o.json", "--questions", seed / "stage_1.json")
    assert "1 id is not in the original file" in call("convert", "dj-to-llava", *words, expect=1).err
    assert not (tmp_path / "o.json").exists()


def test_sample_draws_what_the_kit_draws_and_says_so(call, seed, tmp_path):
    source, out = seed / "mgm_pretrain_stage_1_demo.jsonl", tmp_path / "out.jsonl"
    done = call("convert", "sample", "--input", source, "--output", out, "--max", 5)
    assert "16 rows sampled down to 5 (seed 1024); 11 left out" in done.out
    random.seed(1024)
    assert out.read_text().splitlines() == random.sample(source.read_text().splitlines(), 5)
    for most in (0, 16, 99):
        assert "sampled down" not in call("convert", "sample", "--input", source, "--output", out, "--max", most).out
        assert out.read_bytes() == source.read_bytes()
    assert "needs --max" in call("convert", "sample", "--input", source, "--output", out, expect=2).err


def test_plain_pairs_become_rows_and_what_is_no_pair_is_set_aside(call, tmp_path):
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "rows.jsonl"
    lines = [
        {"image": "a.jpg", "caption": "一只猫"},
        {"image": "sub/b.jpg", "text": "a dog", "id": "b"},
        {"image": "c.jpg"},
    ]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{oops\n", encoding="utf-8")
    done = call("convert", "pairs-to-dj", "--input", pairs, "--output", out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["images"]) for row in rows] == [("000000000", ["a.jpg"]), ("b", ["sub/b.jpg"])]
    assert rows[0]["text"] == "<__dj__image>\n一只猫 <|__dj__eoc|>"
    rejected = [json.loads(line) for line in (tmp_path / "rows.rejected.jsonl").read_text().splitlines()]
    assert "2 unusable" in done.out and [row["number"] for row in rejected] == [3, 4]
    pairs.write_text("\n" + pairs.read_text(encoding="utf-8"), encoding="utf-8")  # a blank line counts in a file
    call("convert", "pairs-to-dj", "--input", pairs, "--output", out)
    assert [json.loads(line)["number"] for line in (tmp_path / "rows.rejected.jsonl").open()] == [4, 5]
    pairs.write_text('{"text": "no picture"}\n', encoding="utf-8")
    assert "no usable pair" in call("convert", "pairs-to-dj", "--input", pairs, "--output", out, expect=1).err


def test_captioned_pictures_become_records_that_are_drawn(call, seed, tmp_path):
    from bettersynth.formats.unified_files import read_unified

    out = tmp_path / "drawing.jsonl"
    facts = call("convert", "llava-to-t2i", "--input", seed / "stage_1.json", "--output", out, "--json").data
    made, original = read_unified(out), json.loads((seed / "stage_1.json").read_text())
    assert facts["rows_in"] == facts["rows_out"] == len(made) == len(original)
    for conversation, record in zip(made, original, strict=True):
        text, picture = conversation.segments
        assert text.text == record["conversations"][1]["value"] and not text.is_target
        assert picture.image.path == record["image"] and picture.is_target
    turns = [*original[1]["conversations"], {"from": "human", "value": "?"}, {"from": "gpt", "value": "a cat"}]
    (tmp_path / "more.json").write_text(json.dumps([original[0], {**original[1], "conversations": turns}]))
    words = ("convert", "llava-to-t2i", "--input", tmp_path / "more.json", "--output", tmp_path / "o.jsonl")
    error = call(*words, expect=1).err
    assert "record 2" in error and "no picture with one caption" in error and not (tmp_path / "o.jsonl").exists()
