"""A look at the seed set, a LLaVA file and a processed folder."""


def test_the_kits_seed_set_by_default(call, tiny_world, tmp_path):
    facts = call("explore", "--workspace", tiny_world, "--json").data
    assert facts["rows"] == 16 and facts["problems"] == {} and facts["stats"]["image_width"]["mean"] == 96
    shown = call("explore", "--workspace", tiny_world, "--html", tmp_path / "page")
    assert "caption_len" in shown.out and "no problem found" in shown.out
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "caption_len" in page and "mgm_pretrain_stage_1_demo.jsonl" in page


def test_llava_form_and_broken_rows(call, tiny_world, tmp_path):
    questions = tiny_world / "input" / "pretrain_stage_1_demo" / "stage_1.json"
    assert call("explore", questions, "--json").data["rows"] == 16
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "text": "<image> one dog", "images": ["gone.jpg"]}\n{broken\n', encoding="utf-8")
    done = call("explore", rows)
    assert "image not found" in done.out and "not valid JSON" in done.out


def test_a_processed_folder_shows_its_galleries(call, world, tmp_path):
    call("process", world / "mine.yaml", "--workspace", world, "--out", tmp_path / "data", "--np", 1)
    facts = call("explore", tmp_path / "data", "--html", tmp_path / "page", "--json").data
    assert facts["rows"] == 16 and facts["problems"] == {}
    assert "clean_html_mapper" in (tmp_path / "page" / "report.html").read_text(encoding="utf-8")


def test_nothing_there(call, tmp_path):
    assert "no such file or folder" in call("explore", tmp_path / "no.jsonl", expect=2).err
    assert "no seed data" in call("explore", expect=1).err
