"""Scores by category, and what changed between two models."""

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
        out = root / "output" / "eval_results" / f"says_{letter}" / "mmbench"
        generate("mmbench", Answerer(letter), root / "toolkit" / "eval", out)
        score(out, root / "toolkit" / "eval", resamples=200)
    return root


def test_one_model_by_category(call, kit):
    done = call("analyze", "says_A", "--workspace", kit)
    assert "mmbench-vanilla: " in done.out and "guessing gives 25.0 %" in done.out and "category/ocr" in done.out
    results = call("analyze", "says_A", "--workspace", kit, "--protocol", SAME, "--json").data
    assert [result["protocol"] for result in results] == [SAME] and results[0]["by_category"]


def test_two_models_question_by_question(call, kit):
    change = call("analyze", "says_A", "says_B", "--workspace", kit, "--protocol", SAME, "--json").data[0]
    assert change["num_questions"] == 3
    points = 100 * sum(c["difference"] for c in change["fixed"] + change["broken"]) / 3
    assert change["difference"]["value"] == pytest.approx(points, abs=1e-3)
    assert sum(count for _, _, count in change["by_category"].values()) == 6
    assert any(" (" in name or "/" in name for name in change["by_category"])
    text = call("analyze", "says_A", "says_B", "--workspace", kit).out
    assert "this speaks of these two models" in text and "questions better" in text


def test_what_cannot_be_analysed(call, kit, tmp_path):
    assert "several models were evaluated" in call("analyze", "--workspace", kit, expect=2).err
    assert "no scores here" in call("analyze", "--workspace", tmp_path, expect=1).err
    assert "unknown protocol" in call("analyze", "says_A", "--workspace", kit, "--protocol", "x", expect=2).err
    changed = shutil.copytree(kit / "output" / "eval_results" / "says_A", tmp_path / "changed")
    path = changed / "mmbench" / "scores" / "results.json"
    path.write_text(path.read_text().replace('"value": 0', '"value": 99'), encoding="utf-8")
    if '"value": 99' in path.read_text():
        assert "changed after they were computed" in call("analyze", changed, expect=1).err
    (changed / "mmbench" / "scores" / "questions.csv").write_text("protocol\n", encoding="utf-8")
    assert "changed after they were computed" in call("analyze", changed, expect=1).err
