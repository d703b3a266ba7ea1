"""Scores by group, and what changed between two models, on the command line and as a page."""

import json
import shutil

import pytest

from bettersynth.eval.runner import generate
from bettersynth.eval.score import score
from bettersynth.infer.protocols import ChatResponse

SAME = "mmbench-vanilla"


class Answerer:
    def __init__(self, letter):
        self.letter, self.digest = letter, letter * 32

    def generate(self, requests, decoding):
        return [ChatResponse(request.key, self.letter, (5, 1), "stop") for request in requests]


@pytest.fixture(scope="module")
def kit(tiny_world, tmp_path_factory):
    """Two models that always say the same letter."""
    root = tmp_path_factory.mktemp("answers") / "kit"
    shutil.copytree(tiny_world / "toolkit" / "eval", root / "toolkit" / "eval")
    for letter in "AB":
        for task in ("mmbench", "textvqa-noocr"):
            out = root / "output" / "eval_results" / f"says_{letter}" / task
            generate(task, Answerer(letter), root / "toolkit" / "eval", out)
            score(out, root / "toolkit" / "eval", resamples=200)
    return root


def test_one_model_by_group(call, kit):
    done = call("analyze", "says_A", "--workspace", kit)
    assert "on mmbench-vanilla" in done.out and "guessing gives 25.0 %" in done.out and "category/ocr" in done.out
    assert "By length of the expected answer" in done.out and "1 word" in done.out
    assert "same letter whatever the order" in done.out and "mmbench-circular" in done.out
    found = call("analyze", "says_A", "--workspace", kit, "--protocol", SAME, "--json").data
    assert [protocol["protocol"] for protocol in found["protocols"]] == [SAME] and found["protocols"][0]["groups"]
    assert found["name_b"] == "" and len(found["digests"]) == 4


def test_two_models_question_by_question(call, kit):
    found = call("analyze", "says_A", "says_B", "--workspace", kit, "--protocol", SAME, "--json").data["protocols"][0]
    assert found["num_questions"] == 3
    points = 100 * sum(c["difference"] for c in found["fixed"] + found["broken"]) / 3
    assert found["difference"]["value"] == pytest.approx(points, abs=1e-3)
    moved = found["fixed"] + found["broken"]
    assert all(change["question"] and change["expected"] for change in moved)
    assert all(change["before"].startswith("A. ") and change["after"].startswith("B. ") for change in moved)
    text = call("analyze", "says_A", "says_B", "--workspace", kit).out
    assert "this speaks of these two models" in text and "Agreement" in text and "p (Holm)" in text


def test_a_page_with_pictures(call, kit, tmp_path):
    done = call("analyze", "says_A", "says_B", "--workspace", kit, "--page", tmp_path / "page", "--resamples", 200)
    assert "analysis.html" in done.out
    page = (tmp_path / "page" / "analysis.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" in page and "says_B" in page and "有所" in page and "textvqa-noocr" in page
    facts = json.loads((tmp_path / "page" / "manifest.json").read_text(encoding="utf-8"))
    assert facts["facts"]["a"] == "says_A" and facts["parents"]


def test_without_the_question_files_it_says_so(call, kit, tmp_path):
    alone = shutil.copytree(kit / "output" / "eval_results" / "says_A", tmp_path / "says_A")
    found = call("analyze", alone, "--json").data["protocols"]
    assert all(protocol["notes"] == ["no question files"] for protocol in found)
    assert {group["kind"] for protocol in found for group in protocol["groups"]} == {"category"}


def test_what_cannot_be_analysed(call, kit, tmp_path):
    assert "several models were evaluated" in call("analyze", "--workspace", kit, expect=2).err
    assert "no scores here" in call("analyze", "--workspace", tmp_path, expect=1).err
    assert "of that name" in call("analyze", "says_C", "--workspace", kit, expect=1).err
    assert "unknown protocol" in call("analyze", "says_A", "--workspace", kit, "--protocol", "x", expect=2).err
    assert "too few" in call("analyze", "says_A", "--workspace", kit, "--resamples", "3", expect=2).err
    changed = shutil.copytree(kit / "output" / "eval_results" / "says_A", tmp_path / "changed")
    path = changed / "mmbench" / "scores" / "results.json"
    path.write_text(path.read_text().replace('"value": 0', '"value": 99'), encoding="utf-8")
    if '"value": 99' in path.read_text():
        assert "changed after they were computed" in call("analyze", changed, expect=1).err
    (changed / "mmbench" / "scores" / "questions.csv").write_text("protocol\n", encoding="utf-8")
    assert "changed after they were computed" in call("analyze", changed, expect=1).err
