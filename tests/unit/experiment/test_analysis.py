"""Groups, errors, agreement and changes between models and conditions, on answers whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.experiment import stats
from bettersynth.experiment.agreement import agreement
from bettersynth.experiment.analysis import _difference, analyse
from bettersynth.experiment.answers import Side, find_side, letters_of


def write_scores(folder: Path, rows: list[tuple[str, str, str, str, float]], protocol: str = "textvqa-noocr") -> Path:
    """A scores folder with (question id, category, answer, expected, score) rows and a provenance."""
    from bettersynth.core.artifact import write_atomic, write_manifest
    from bettersynth.core.record import EvalResult, Interval

    lines = ["protocol,question_id,category,prediction,extracted,answers,score"]
    lines += [
        f"{protocol},{key},{category},{answer},{answer.lower()},{right},{score}"
        for key, category, answer, right, score in rows
    ]
    mean = 100 * sum(row[-1] for row in rows) / len(rows)
    stamp = dict.fromkeys(("checkpoint", "prompt", "decoding", "protocol", "data", "predictions"), "d" * 32)
    result = EvalResult("textvqa", protocol, Interval(mean, mean, mean), len(rows), 10.0, "", False, {}, stamp)
    from dataclasses import asdict

    scores = folder / "p" / "scores"
    write_atomic(scores / "questions.csv", ("\n".join(lines) + "\n").encode())
    write_atomic(scores / "results.json", json.dumps({"results": [asdict(result)]}).encode())
    facts = {"protocol": protocol, "task": "textvqa"}
    write_manifest(scores, kind="scores", facts=facts, files=["questions.csv", "results.json"])
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Condition ``bad`` knows nothing; ``good`` answers signs; three seeds each; two questions on every picture."""
    for condition in ("bad", "good"):
        for seed in (1, 2, 3):
            rows = []
            for n in range(40):
                is_sign = n % 2 == 0
                right = condition == "good" and is_sign and (n + seed) % 7 != 0
                kind = "category/sign" if is_sign else "category/colour"
                rows.append(
                    (f"p{n // 2}" + ("" if is_sign else "#2"), kind, "stop" if right else "STOPP", "stop", float(right))
                )
            write_scores(tmp_path / "output" / "experiments" / "e" / "trials" / f"{condition}-{seed}", rows)
    return tmp_path


def test_a_condition_stands_for_all_its_seeds(experiment: Path):
    found = analyse(find_side("bad", experiment), find_side("e/good", experiment), resamples=300).protocols[0]
    assert found.num_questions == 40 and found.verdict == "better" and found.chance == 10.0
    signs, colours = sorted(found.groups, key=lambda group: -group.num_questions if "sign" in group.name else 0)
    assert (signs.name, signs.num_questions, signs.verdict) == ("category/sign", 20, "better")
    assert signs.difference.low > 60 and signs.b.value > 80 and signs.a.value == 0.0
    assert colours.verdict == "tie" and colours.difference.value == 0 and colours.difference.high > 10
    assert {error.name: error.verdict for error in found.errors} == {"misspelt": "worse"}
    assert len(found.fixed) == 20 and not found.broken
    assert found.fixed[0].difference == 1.0 and found.fixed[0].error_before == "misspelt"
    assert found.agreement.within_a == 100.0 and 50 < found.agreement.within_b < 100
    # Wrong with one seed of three: a seed that was right is shown beside the wrong answer.
    rare = [change for change in found.fixed if change.difference < 1]
    assert rare and all((c.error_before, c.error_after) == ("misspelt", "right") for c in rare)
    total = found.agreement
    assert total.both_right.value + total.only_a.value + total.only_b.value + total.both_wrong.value == pytest.approx(
        100
    )
    assert total.kappa is None or total.kappa.value == pytest.approx(0.0)
    assert "no question files" in found.notes


def test_one_seed_of_a_condition_and_unpaired_seeds(experiment: Path):
    one = find_side("good-2", experiment)
    assert list(one.folders) == [""]
    found = analyse(one, resamples=200)
    assert found.name_b == "" and found.protocols[0].b is None and found.protocols[0].groups[0].difference is None
    mixed = analyse(find_side("bad", experiment), one, resamples=200)
    assert not mixed.is_seed_paired and mixed.num_seeds == (3, 1) and mixed.protocols[0].verdict == "better"


def test_what_cannot_be_found(experiment: Path, tmp_path: Path):
    with pytest.raises(DataError, match="no model, folder or condition") as missing:
        find_side("god", experiment)
    assert "good" in str(missing.value.expected)
    other = experiment / "output" / "experiments" / "f" / "trials" / "good-1"
    write_scores(other, [("q", "", "a", "a", 1.0)])
    with pytest.raises(ConfigError, match="several experiments"):
        find_side("good", experiment)
    with pytest.raises(DataError, match="not asked the same"):
        analyse(Side("x", {"": other}), find_side("e/good", experiment), resamples=200)
    with pytest.raises(ConfigError, match="unknown protocol"):
        analyse(Side("x", {"": other}), protocol="nothing")


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(0)
    pictures = np.repeat(rng.random(60) < 0.5, 4).astype(float)[None]
    names = [str(n // 4) for n in range(240)]
    alone = stats.mean_interval(pictures)
    together = stats.mean_interval(stats.cluster_columns(pictures, names))
    assert together.value == pytest.approx(alone.value)
    assert 1.7 < (together.high - together.low) / (alone.high - alone.low) < 2.3  # sqrt(4), as all four are alike
    shuffled = stats.cluster_columns(pictures, [str(n) for n in range(240)])
    assert np.allclose(sorted(shuffled[0]), sorted(pictures[0]))


def test_intervals_of_paired_differences_cover_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        names = [str(n // 2) for n in range(120)]
        common = np.repeat(rng.normal(0, 0.3, 60), 2)
        a, b = (rng.random(120) < np.clip(p + common, 0, 1) for p in (0.4, 0.5))
        columns = [stats.cluster_columns(x[None].astype(float), names) for x in (a, b)]
        truth = float((np.clip(0.5 + common, 0, 1) - np.clip(0.4 + common, 0, 1)).mean())
        found, p_value = _difference(*columns, True, 300)
        covered += found.low <= 100 * truth <= found.high
        assert 0 <= p_value <= 1
    assert covered >= 53


def test_equal_changes_do_not_look_certain():
    same, p_value = _difference(np.zeros((1, 3)), np.zeros((1, 3)), True, 200)
    assert same.low < -40 and same.high > 40 and p_value == 1.0
    all_up, p_value = _difference(np.zeros((1, 3)), np.ones((1, 3)), True, 200)
    assert all_up.value == 100 and all_up.low < 60 and p_value == 0.25


def test_agreement_against_a_table_by_hand():
    a, b = np.array([[1, 1, 0, 0, 0, 1.0]]), np.array([[1, 0, 1, 0, 0, 1.0]])
    texts_a, texts_b = [["x"], ["x"], ["y"], ["y"], ["z"], ["x"]], [["x"], ["y"], ["x"], ["y"], ["w"], ["x"]]
    found = agreement(a, b, texts_a, texts_b, list("abcdef"), 500)
    assert (found.both_right.value, found.both_wrong.value) == pytest.approx((100 / 3, 100 / 3))
    assert found.same_answer.value == pytest.approx(50) and found.same_wrong.value == pytest.approx(50)
    assert found.kappa.value == pytest.approx(1 / 3)  # 4/6 observed, 1/2 expected
    assert found.kappa.low < 1 / 3 < found.kappa.high and found.p_mcnemar == 1.0


def test_letters_of_a_cell():
    assert letters_of("A | B | ", 3) == ["A", "B", ""]
    assert letters_of("a cat | dog", 3) == ["", "", ""]
