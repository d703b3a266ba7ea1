"""The table of the early look at alignment, from an experiment folder with known readings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import alignment


def trial(folder: Path, number: int, score: float, margin: float) -> None:
    place = folder / "trials" / f"c-{number}"
    stage = place / "training_dirs" / f"MGM-2B-Pretrain-c-{number}"
    stage.mkdir(parents=True)
    scores = {"textvqa-noocr": {"a": score, "b": score}}
    (place / "trial.json").write_text(json.dumps({"condition": "c", "seed": number, "scores": scores}))
    lines = [
        {"share": share, "margin": margin, "retrieval": 0.5, "held_out_loss": 1.0, "loss": score, "low": score}
        for share in (0.1, 0.5)
    ]
    (stage / "probe.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_signal_that_tells_and_one_that_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, score in enumerate((0.1, 0.2, 0.3, 0.7, 0.8, 0.9)):
        trial(tmp_path, number, score, margin=score - 1)
    assert alignment.main([str(tmp_path), "--results", str(tmp_path / "r")]) == 0
    said = capsys.readouterr().out
    assert "6 trials; textvqa-noocr 10.0 to 90.0; 3 above 50.0" in said
    rows = json.loads((tmp_path / "r" / "alignment.json").read_text())["rows"]
    found = {(row["share"], row["signal"]): row["auc"] for row in rows}
    assert found[0.1, "margin"] == 1.0 and found[0.5, "retrieval"] == 0.5 and found[0.5, "loss"] == 0.0
    within = {(row["share"], row["signal"]): (row["within"], row["pairs"]) for row in rows}
    assert within[0.1, "margin"] == (1.0, 15) and within[0.1, "retrieval"] == (0.5, 15)
    assert "50%  said to use their pictures: good 1/3, others 0/3" in said  # only 0.9 is sure
    with pytest.raises(SystemExit):
        alignment.main([str(tmp_path), "--protocol", "mmbench-circular"])
    assert "4 are needed" in capsys.readouterr().err
