"""Joint training when things go wrong in the middle: the message is clear and the last good state stays."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bettersynth.config.train import StageConfig, stage_config
from bettersynth.core.errors import BetterSynthError, DataError
from bettersynth.models.bagel.convert import load_checkpoint
from bettersynth.train.callbacks import Callback
from bettersynth.train.stages import run_stage

SMALLEST_STATE_BYTES = 30_000


@pytest.fixture(scope="module")
def config(unified_kit: ModuleType, unified_folder: Path) -> StageConfig:
    return stage_config(unified_kit.settings(unified_folder, val_data=str(unified_folder / "val.jsonl")))


@pytest.fixture(scope="module")
def digest(config: StageConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the weights after an undisturbed run."""
    run = run_stage(config, out=tmp_path_factory.mktemp("whole") / "run", progress=Callback())
    return str(run.facts["weights_digest"])


class At(Callback):
    """Calls something at the end of one step, or (step 0) after the last save."""

    def __init__(self, step: int, work: Callable[[Any], None]) -> None:
        self.step, self.work = step, work

    def on_step(self, view: Any) -> None:
        if view.step == self.step:
            self.work(view)

    def on_end(self, summary: Any) -> None:
        if not self.step:
            self.work(None)


@contextmanager
def disk(full: list[bool]) -> Iterator[Callable[[Any], None]]:
    """A function after whose call no file may grow beyond some bytes, until the block ends."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(_: Any) -> None:
        full.append(True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALLEST_STATE_BYTES, before[1]))

    try:
        yield fill
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_loss_that_is_no_number_stops_and_the_last_state_goes_on(
    config: StageConfig, digest: str, tmp_path: Path
) -> None:
    def spoil(view: Any) -> None:
        with torch.no_grad():
            view.model.llm2vae.bias[0] = float("nan")

    with pytest.raises(BetterSynthError, match="loss is not finite at step 6") as caught:
        run_stage(config, out=tmp_path / "run", progress=Callback(), callbacks=[At(5, spoil)])
    assert "samples: r" in caught.value.render() and "last saved state is kept" in caught.value.render()
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
    assert run_stage(config, out=tmp_path / "run", progress=Callback()).facts["weights_digest"] == digest


@pytest.mark.parametrize(
    ("step", "every", "message", "kept"),
    [
        (3, 2, "cannot save the best checkpoint", "checkpoint-2"),
        (3, 5, "cannot save the training state", "checkpoint-2"),
        (0, 2, "cannot write the result", "checkpoint-6"),
    ],
    ids=["at the best", "at a state", "at the result"],
)
def test_a_full_disk_keeps_the_last_good_state(
    config: StageConfig, digest: str, tmp_path: Path, step: int, every: int, message: str, kept: str
) -> None:
    full: list[bool] = []
    config = config.model_copy(update={"eval_steps": every})
    with disk(full) as fill, pytest.raises(DataError, match=message) as caught:
        run_stage(config, out=tmp_path / "run", progress=Callback(), callbacks=[At(step, fill)])
    assert full and "hint" in caught.value.render()
    assert (tmp_path / "run" / kept / "state.json").is_file()
    assert not list((tmp_path / "run").glob(".*.tmp"))
    if every == 2:  # the best so far is whole, too
        assert json.loads((tmp_path / "run" / "best" / "best.json").read_text())["step"] >= 2
        assert load_checkpoint(tmp_path / "run" / "best", dtype=torch.float32)
    assert run_stage(config, out=tmp_path / "run", progress=Callback()).facts["weights_digest"] == digest


def test_a_wrong_size_of_the_latent_table_is_refused(
    unified_kit: ModuleType, unified_folder: Path, tmp_path: Path
) -> None:
    """The original trains on in silence with every position wrong."""
    unified_kit.write_model(tmp_path / "model")
    path = tmp_path / "model" / "bagel_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_latent_size": 3}))
    wrong = stage_config(unified_kit.settings(unified_folder, init_from=str(tmp_path / "model")))
    with pytest.raises(DataError) as caught:
        run_stage(wrong, out=tmp_path / "run", progress=Callback())
    assert "max_latent_size: 3" in caught.value.render() and "max_latent_size: 6" in caught.value.render()
