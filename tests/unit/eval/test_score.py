from __future__ import annotations

import csv
import json

import pytest

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import DataError, ProvenanceError
from bettersynth.eval.predictions import FILE
from bettersynth.eval.runner import generate
from bettersynth.eval.score import load_question_scores, load_results, score

from .conftest import ScriptedChat


@pytest.fixture
def answered(data, tmp_path):
    out = tmp_path / "NAME" / "textvqa-noocr"
    generate("textvqa-noocr", ScriptedChat(lambda request: "stop"), data, out)
    return out


def test_scores_with_interval_chance_and_provenance(data, answered):
    artifact = score(answered, data)
    (result,) = load_results(artifact.folder)
    assert result.protocol == "textvqa-noocr" and result.num_questions == 3
    assert result.score.value == pytest.approx(100 / 3)
    assert result.score.low <= result.score.value <= result.score.high
    assert result.chance == pytest.approx(100 / 3) and result.at_chance
    assert result.provenance["predictions"] == Artifact.load(answered).digest
    assert load_question_scores(artifact.folder) == {"textvqa-noocr": {"p0": 1.0, "p0#2": 0.0, "p1": 0.0}}
    with (artifact.folder / "questions.csv").open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert row["prediction"] == row["extracted"] == "stop" and row["answers"].startswith("stop | ")


def test_mmbench_gives_three_protocols_with_categories(data, tmp_path):
    out = tmp_path / "NAME" / "mmbench"
    generate("mmbench", ScriptedChat(lambda request: "A"), data, out)
    results = {result.protocol: result for result in load_results(score(out, data).folder)}
    assert sorted(results) == ["mmbench-circular", "mmbench-kit", "mmbench-vanilla"]
    assert results["mmbench-vanilla"].score.value == 50.0
    assert results["mmbench-circular"].score.value == 0.0
    assert results["mmbench-vanilla"].by_category == {"category/ocr": (50.0, 2), "l2/FP-S": (50.0, 2)}


def test_scoring_twice_gives_the_same_bytes(data, answered, tmp_path):
    first, second = score(answered, data, tmp_path / "a"), score(answered, data, tmp_path / "b")
    assert first.digest == second.digest


def _rewrite(folder, change):
    """Change the answers *and* put matching file digests in the manifest, as a forger would."""
    from bettersynth.core.artifact import write_manifest

    old = Artifact.load(folder)
    lines = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    for line in lines:
        change(line)
    (folder / FILE).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_manifest(folder, kind="predictions", facts=old.facts, files=list(old.files), parents=old.parents)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line.pop("provenance"), "without provenance"),
        (lambda line: line["provenance"].pop("decoding"), "without provenance"),
        (lambda line: line["provenance"].update(checkpoint="e" * 32), "does not match"),
        (lambda line: line["provenance"].update(data="e" * 32), "does not match"),
        (lambda line: line["provenance"].update(prompt="e" * 32), "does not match"),
        (lambda line: line["provenance"].update(protocol="textvqa-ocr"), "does not match"),
        (lambda line: line["provenance"].update(decoding="e" * 32), "does not match"),
        (lambda line: line.update(key=line["key"] + "x"), "other questions"),
    ],
)
def test_answers_that_do_not_say_where_they_come_from_are_refused(data, answered, change, message):
    _rewrite(answered, change)
    with pytest.raises(ProvenanceError, match=message):
        score(answered, data)


def test_changed_answers_other_data_and_other_checkpoints_are_refused(data, answered):
    with pytest.raises(ProvenanceError, match="another checkpoint"):
        score(answered, data, checkpoint="f" * 32)
    (data / "textvqa" / "train_images" / "p0.png").write_bytes(b"another picture")
    with pytest.raises(ProvenanceError, match="does not match"):
        score(answered, data)
    with (answered / FILE).open("a") as stream:
        stream.write("\n")
    with pytest.raises(ProvenanceError, match="changed after"):
        score(answered, data)
    (answered / "manifest.json").unlink()
    with pytest.raises(ProvenanceError, match="no manifest"):
        score(answered, data)
    (answered / FILE).unlink()
    with pytest.raises(DataError):
        score(answered, data)


def test_a_score_changed_by_hand_is_not_read(data, answered):
    folder = score(answered, data).folder
    path = folder / "results.json"
    path.write_text(path.read_text().replace("33.3", "99.9"))
    with pytest.raises(ProvenanceError, match="changed after"):
        load_results(folder)


def test_a_ratio_over_the_set_has_an_interval_but_no_score_per_question(data, tmp_path):
    from bettersynth.eval.score import load_question_scores

    says_yes = ScriptedChat(lambda request: "yes" if "dog" in request.prompt or "hat" in request.prompt else "no")
    folder = generate("pope", says_yes, data, tmp_path / "m" / "pope").folder
    results = {result.protocol: result for result in load_results(score(folder, data, resamples=300).folder)}
    f1 = results["pope-f1"]
    assert f1.score.value == pytest.approx(50.0) and f1.score.low < 50 < f1.score.high  # TP 1, FP 1, FN 1
    assert f1.by_category["kind/random"] == (pytest.approx(200 / 3), 3)
    assert results["pope"].facts["f1"] == pytest.approx(50.0) and results["pope"].facts["recall"] == 50
    assert list(load_question_scores(folder / "scores")) == ["pope"]
