"""A look at the seed set, a LLaVA file and a processed folder."""

import json

from PIL import Image


def test_the_kits_seed_set_by_default(call, tiny_world, tmp_path):
    facts = call("explore", "--workspace", tiny_world, "--json").data
    assert facts["rows"] == 16 and facts["problems"] == {} and facts["stats"]["image_width"]["mean"] == 96
    shown = call("explore", "--workspace", tiny_world, "--html", tmp_path / "page")
    assert "caption_len" in shown.out and "no problem found" not in shown.out  # the demo's noise is told
    assert call("explore", tiny_world, "--json").data["rows"] == 16  # a kit by its folder
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "caption_len" in page and "mgm_pretrain_stage_1_demo.jsonl" in page


def test_llava_form_and_broken_rows(call, tiny_world, tmp_path):
    questions = tiny_world / "input" / "pretrain_stage_1_demo" / "stage_1.json"
    assert call("explore", questions, "--json").data["rows"] == 16
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "text": "<image> one dog", "images": ["gone.jpg"]}\n{broken\n', encoding="utf-8")
    done = call("explore", rows)
    assert "image not found" in done.out and "not valid JSON" in done.out and "line 2" in done.out


def test_a_processed_folder_shows_its_galleries(call, world, tmp_path):
    call("process", world / "mine.yaml", "--workspace", world, "--out", tmp_path / "data", "--np", 1)
    facts = call("explore", tmp_path / "data", "--html", tmp_path / "page", "--json").data
    assert facts["rows"] == 16 and facts["problems"] == {}
    assert "clean_html_mapper" in (tmp_path / "page" / "report.html").read_text(encoding="utf-8")


def test_nothing_there(call, tmp_path):
    assert "no such file or folder" in call("explore", tmp_path / "no.jsonl", expect=2).err
    assert "no seed data" in call("explore", expect=1).err


def test_scripts_near_copies_outliers_and_lines_to_paste(call, tiny_world, tmp_path):
    rows = tmp_path / "rows.jsonl"
    long = "a small red bird sits on the old wooden fence beside the quiet river in the early morning light"
    texts = [long, long.upper(), "两只狗在草地上", "<b>x</b>", "12 34"]
    rows.write_text("".join(json.dumps({"id": f"r{i}", "text": text}) + "\n" for i, text in enumerate(texts)), "utf-8")
    facts = call("explore", rows, "--json").data
    assert facts["scripts"] == {"latin": 3, "cjk": 1, "none": 1}
    assert facts["near_duplicates"] == 1 and facts["duplicates"]["text"] == 0
    assert [row["id"] for row in facts["outliers"]["caption_len"]["smallest"]][:2] == ["r4", "r2"]
    assert facts["outliers"]["caption_len"]["largest"][0]["value"] == len(long)
    shown = call("explore", rows, "--html", tmp_path / "page").out
    assert (
        "- text_length_filter: {min_len: 5, max_len: 95}" in facts["suggestions"] and facts["suggestions"][0] in shown
    )
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"dataset_path: {rows}\nprocess:\n" + "\n".join(facts["suggestions"]) + "\n", "utf-8")
    call("process", recipe, "--plan", "--out", tmp_path / "out")


def test_the_page_shows_outliers_and_escapes_them(call, tiny_world, tmp_path):
    rows = tmp_path / "rows.jsonl"
    picture = next((tiny_world / "input").rglob("*.jpg"), None) or next((tiny_world / "input").rglob("*.png"))
    rows.write_text(json.dumps({"id": "<i>", "text": "<script>alert(1)</script>", "images": [str(picture)]}) + "\n")
    call("explore", rows, "--html", tmp_path / "page")
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "smallest" in page


def test_what_is_wrong_is_counted_with_a_few_rows_of_each(call, tmp_path):
    rows = tmp_path / "rows.jsonl"
    for name, colour in (("a.png", 0), ("b.png", 0), ("c.png", 9)):
        Image.new("L", (8, 8), colour).save(tmp_path / name)
    texts = [
        "<image>\na quiet street",
        "<image>\n<b>bold</b>",
        "<image>\nan old cafÃ© sign",
        "no token",
        "<image>\ntwo cats",
    ]
    listed = [
        {"id": f"r{number}", "text": text, "images": [f"{'abcac'[number]}.png"]} for number, text in enumerate(texts)
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    facts = call("explore", rows, "--json").data
    assert facts["counts"]["mojibake"] == facts["counts"]["markup"] == facts["counts"]["image_tokens_differ"] == 1
    assert facts["duplicates"]["image"] == 3  # a and c twice, and b has the bytes of a
    assert facts["examples"]["mojibake"] == ["r2"] and facts["examples"]["repeated image"] == ["r3", "r4"]
    shown = call("explore", rows).out
    assert "no problem found" not in shown and "markup" in shown.split("problem  ")[1]
    rows.write_text('{"id": "a", "text": "<image>\\nfine", "images": ["a.png"]}\n', encoding="utf-8")
    assert "no problem found" in call("explore", rows).out
    rows.write_text("", encoding="utf-8")
    assert "the data set has no row" in call("explore", rows).out


def test_plain_pairs_are_pointed_to_their_conversion(call, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"image": "a.png", "caption": "a cat"}\n' * 2, encoding="utf-8")
    way = f"bettersynth convert pairs-to-dj --input {pairs}"
    assert way in call("explore", pairs, expect=1).err
    assert way in call("explore", pairs, "--text-key", "caption").err
    pairs.write_text("{oops\n", encoding="utf-8")
    assert "no row of this data set can be read" in call("explore", pairs, expect=1).err
