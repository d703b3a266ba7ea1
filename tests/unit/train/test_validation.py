"""Held-out loss of a two-stage training: what it measures, where it is written, and that it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import ConfigError
from bettersynth.models.family import load_family
from bettersynth.train.callbacks import Callback, read_log
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage
from bettersynth.train.validation import FILE, open_validation

Configure = Callable[..., StageConfig]


@pytest.fixture(scope="module")
def held_out(mgm_data: Path) -> str:
    rows = json.loads((mgm_data / "data.json").read_text())[:7]
    (mgm_data / "held_out.json").write_text(json.dumps(rows))
    return str(mgm_data / "held_out.json")


@pytest.mark.parametrize("changes", [{"stage": 1}, {"packing": True}], ids=str)
def test_it_is_the_loss_of_the_weights_and_changes_none(
    mgm_configure: Configure, held_out: str, tmp_path: Path, changes: dict[str, Any]
) -> None:
    told: dict[int, float] = {}

    class Report(Callback):
        def on_metrics(self, step: int, values: Any) -> None:
            told[step] = values["loss"]

    plain = run_stage(mgm_configure(**changes), out=tmp_path / "plain", progress=Callback())
    config = mgm_configure(val_data=held_out, eval_steps=4, **changes)
    artifact = run_stage(config, out=tmp_path / "run", progress=Callback(), callbacks=[Report()])
    assert artifact.facts == plain.facts  # the samples seen and the run's identity among them
    lines = read_log(tmp_path / "run" / FILE)
    assert {line["step"]: line["loss"] for line in lines} == told
    assert list(told) == [4, 6]
    assert not (tmp_path / "run" / "best").exists()
    family = load_family("mgm")
    if config.stage == 1:
        model = family.load_base(_bases(config), dtype=torch.float32, seed=config.seed)
        family.load_adapter(model, tmp_path / "run")
    else:
        model = family.load_checkpoint(tmp_path / "run", dtype=torch.float32)
    (again,) = open_validation(config.with_devices(1), family, model, tmp_path, Callback())
    assert again.measure(model)["loss"] == pytest.approx(told[6], rel=1e-4)  # type: ignore[attr-defined]


def test_what_cannot_be_measured_is_told_and_counted(mgm_configure: Configure, mgm_data: Path, tmp_path: Path) -> None:
    rows = json.loads((mgm_data / "data.json").read_text())[:6]
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(mgm_data / "cut.png")
    (mgm_data / "cut.png").write_bytes((mgm_data / "cut.png").read_bytes()[:6000])  # its head says nothing yet
    rows[1] |= {"id": "broken", "image": "cut.png"}
    rows.append({"id": "empty", "conversations": []})
    (mgm_data / "partly.json").write_text(json.dumps(rows))
    said: list[str] = []

    class Report(Callback):
        def on_note(self, text: str) -> None:
            said.append(text)

    config = mgm_configure(val_data=str(mgm_data / "partly.json"), eval_steps=3, max_bad_ratio=0.5)
    run_stage(config, out=tmp_path / "run", progress=Callback(), callbacks=[Report()])
    assert [text for text in said if "held-out records" in text] == [
        "run: held-out records: 1 row left out: bad_record 1"
    ]
    assert len([text for text in said if "broken left out" in text]) == 1  # not at every measurement
    assert {line["records"] for line in read_log(tmp_path / "run" / FILE)} == {5}


def _bases(config: StageConfig) -> Any:
    from bettersynth.train.bases import base_folders

    return base_folders(config)


def test_locked_tracks_allow_it_but_not_the_training_data() -> None:
    places = {"data": "a.json", "model_zoo": "zoo"}
    config = stage_settings(load_preset("10k"), 2, {**places, "val_data": "b.json"})
    assert config.result_digest() == stage_settings(load_preset("10k"), 2, places).result_digest()
    with pytest.raises(ConfigError, match="training data"):
        stage_settings(load_preset("10k"), 2, {**places, "val_data": "a.json"})
