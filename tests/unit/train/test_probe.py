"""The alignment probe: what it reads, that it changes nothing, and that it can end a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bettersynth.config.train import StageConfig, stage_config
from bettersynth.core.errors import BetterSynthError
from bettersynth.train import probe
from bettersynth.train.callbacks import Callback, StepView
from bettersynth.train.stages import run_stage

ZOO = Path(__file__).parents[2] / "golden" / "data" / "mgm_a" / "model_zoo"
QUIET = Callback()


def config_for(folder: Path, wanted: str | bool, **changes: Any) -> StageConfig:
    settings = {
        "stage": 1,
        "data": folder / "data.json",
        "model_zoo": ZOO,
        "samples_seen": 120,
        "save_steps": 1,
        "lr": 0.02,
        "per_device_batch_size": 6,
        "image_size_aux": 128,
        "max_length": 160,
        "seed": 5,
    }
    return stage_config({**settings, "alignment_probe": wanted, **changes})


class Notes(Callback):
    def __init__(self, stop_at: int = 0) -> None:
        self.said: list[str] = []
        self.stop_at = stop_at

    def on_note(self, text: str) -> None:
        self.said.append(text)

    def on_step(self, view: StepView) -> None:
        if view.step == self.stop_at:
            raise KeyboardInterrupt


def test_three_readings_change_no_weight_and_continue_after_a_stop(mgm_data: Path, tmp_path: Path) -> None:
    plain = run_stage(config_for(mgm_data, "off"), out=tmp_path / "off", progress=QUIET)
    notes = Notes()
    probed = run_stage(config_for(mgm_data, "warn"), out=tmp_path / "warn", progress=QUIET, callbacks=[notes])
    assert probed.facts["weights_digest"] == plain.facts["weights_digest"]
    found = probe.readings(tmp_path / "warn")
    assert [(line["step"], line["share"]) for line in found] == [(2, 0.1), (4, 0.2), (10, 0.5)]
    assert sum("own picture preferred" in note for note in notes.said) == 3
    assert not (tmp_path / "off" / probe.PROBE_FILE).exists()
    with pytest.raises(BetterSynthError, match="interrupted"):
        run_stage(config_for(mgm_data, "warn"), out=tmp_path / "cut", progress=QUIET, callbacks=[Notes(stop_at=5)])
    run_stage(config_for(mgm_data, "warn"), out=tmp_path / "cut", progress=QUIET)
    assert probe.readings(tmp_path / "cut") == found


def test_a_reading_is_what_it_says(mgm_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Half of the own pictures are better by 0.5, half worse by 0.1.
    pairs = [(1.0, 1.5), (1.0, 0.9)] * 10
    monkeypatch.setattr(probe.AlignmentProbe, "_scores", lambda self: ([1.0, 2.0], pairs))
    run_stage(config_for(mgm_data, "warn"), out=tmp_path / "run", progress=QUIET)
    last = probe.readings(tmp_path / "run")[-1]
    assert last["retrieval"] == 0.5 and last["comparisons"] == 20 and last["verdict"] == "not yet"
    assert last["margin"] == pytest.approx(0.2) and last["held_out_loss"] == 1.5
    assert last["first_loss"] > last["loss"] > 0 and last["grad_norm"] > 0
    monkeypatch.setattr(probe.AlignmentProbe, "_scores", lambda self: ([1.0], [(1.0, 1.5)] * 20))
    run_stage(config_for(mgm_data, "stop"), out=tmp_path / "good", progress=QUIET)
    assert probe.readings(tmp_path / "good")[-1]["verdict"] == "weak"  # 20 of 20 are not yet enough


@pytest.mark.parametrize(("low", "verdict"), [(0.5, "not yet"), (0.51, "weak"), (0.89, "weak"), (0.9, "aligned")])
def test_verdicts(low: float, verdict: str) -> None:
    assert probe.verdict_of(low) == verdict


def test_a_run_that_ignores_its_pictures_is_ended_at_half_time(
    mgm_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe.AlignmentProbe, "_scores", lambda self: ([1.0], [(1.0, 0.9), (1.0, 1.1)] * 20))
    with pytest.raises(BetterSynthError, match="still ignores its pictures") as caught:
        run_stage(config_for(mgm_data, "stop"), out=tmp_path / "run", progress=QUIET)
    assert "alignment_probe: warn" in str(caught.value.hint)
    done = run_stage(config_for(mgm_data, "warn"), out=tmp_path / "run", progress=QUIET)  # goes on from the last state
    assert done.facts["steps"] == 20


def test_a_bare_off_of_a_yaml_file_turns_it_off(mgm_data: Path) -> None:
    assert config_for(mgm_data, False).alignment_probe == "off"


def test_it_reads_packed_samples_as_well(mgm_data: Path, tmp_path: Path) -> None:
    padded, packed = tmp_path / "padded", tmp_path / "packed"
    run_stage(config_for(mgm_data, "warn"), out=padded, progress=QUIET)
    run_stage(config_for(mgm_data, "warn", packing=True), out=packed, progress=QUIET)
    for one, other in zip(probe.readings(padded), probe.readings(packed), strict=True):
        assert other["margin"] == pytest.approx(one["margin"], abs=1e-3)
        assert other["verdict"] == one["verdict"]


def test_held_out_samples_are_shown_last_and_have_one_picture(mgm_data: Path, tmp_path: Path) -> None:
    rows = json.loads((mgm_data / "data.json").read_text())
    seen: list[int] = []

    def look(run: Any, order: Any, *rest: Any) -> None:
        seen.extend(probe._held_out(run, order))
        shown = list(dict.fromkeys(order))
        alone = [index for index in shown if "image" in rows[run.data.examples.rows[index]]]
        assert sorted(seen) == sorted(alone[-probe.HELD_OUT :])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bettersynth.train.trainer.open_probe", look)
        patch.setattr(probe, "HELD_OUT", 5)
        run_stage(config_for(mgm_data, "warn"), out=tmp_path / "run", progress=QUIET)
    assert len(seen) == 5
