"""run_stage end to end with the fake family: results, resume, refusals, accounting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bettersynth.config.train import StageConfig
from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import ConfigError, DataError, RunInterrupted
from bettersynth.train import stages
from bettersynth.train.callbacks import Callback, StepView, read_log
from bettersynth.train.checkpoint import saved_states
from bettersynth.train.stages import run_stage

QUIET = Callback()
Configure = Callable[..., StageConfig]
pytestmark = pytest.mark.usefixtures("fake_family")


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_log(out / "train_log.jsonl")]


class StopAt(Callback):
    """Raises at a step, like a crash between two saves."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_step(self, view: StepView) -> None:
        if view.step == self.step:
            raise self.error


def test_stage_two_trains_and_describes_itself(configure: Configure, tmp_path: Path) -> None:
    artifact = run_stage(configure(epochs=4), out=tmp_path / "run", progress=QUIET)
    values = losses(tmp_path / "run")
    assert len(values) == artifact.facts["steps"] == 21
    assert sum(values[-5:]) < 0.8 * sum(values[:5])
    assert artifact.facts["samples_seen"] == 168
    assert artifact.facts["rows"] == artifact.facts["rows_trained"] == 42
    assert set(artifact.files) == {"model.pt", "config.json", "rejected.jsonl"}
    assert set(artifact.parents) == {"data", "llm", "vision_tower", "vision_tower_aux"}
    assert artifact.run["wall_s"] > 0
    assert artifact.run["cpu_s"] > 0
    assert not artifact.verify()
    assert not saved_states(tmp_path / "run")


def test_log_lines_hold_what_the_report_needs(configure: Configure, tmp_path: Path) -> None:
    run_stage(configure(), out=tmp_path / "run", progress=QUIET)
    lines = read_log(tmp_path / "run" / "train_log.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0]["lr"] == 0.0
    assert lines[1]["lr"] == 0.05
    assert [line["samples_seen"] for line in lines] == [8, 16, 24, 32, 40, 42]
    assert lines[-1]["epoch"] == 1.0
    keys = {"step", "epoch", "loss", "lr", "grad_norm", "samples_seen", "tokens", "samples_per_s", "wall_s"}
    keys |= {"tokens_per_s", "memory_bytes"}
    assert set(lines[0]) == keys


@pytest.mark.parametrize(("stage", "names"), [(1, ["pretrain.log"]), (2, ["finetuning.log", "finetune.log"])])
def test_kit_logs_have_the_kits_names(configure: Configure, tmp_path: Path, stage: int, names: list[str]) -> None:
    run_stage(configure(stage=stage), out=tmp_path / "run", progress=QUIET)
    assert sorted(path.name for path in (tmp_path / "run").glob("*.log")) == sorted(names)
    text = (tmp_path / "run" / names[0]).read_text()
    assert text.count("'learning_rate'") == 6
    assert "train_runtime" in text
    assert len({(tmp_path / "run" / name).read_text() for name in names}) == 1


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_crash_and_rerun_gives_the_same_bits(configure: Configure, tmp_path: Path, step: int) -> None:
    whole = run_stage(configure(), out=tmp_path / "whole", progress=QUIET)
    with pytest.raises(ZeroDivisionError):
        run_stage(configure(), out=tmp_path / "cut", progress=QUIET, callbacks=[StopAt(step, ZeroDivisionError())])
    resumed = run_stage(configure(), out=tmp_path / "cut", progress=QUIET)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert resumed.digest == whole.digest
    assert (tmp_path / "cut" / "finetune.log").read_text().count("'learning_rate'") == 6


def test_log_window_survives_a_crash(configure: Configure, tmp_path: Path) -> None:
    run_stage(configure(logging_steps=3), out=tmp_path / "whole", progress=QUIET)
    with pytest.raises(ZeroDivisionError):
        run_stage(
            configure(logging_steps=3), out=tmp_path / "cut", progress=QUIET, callbacks=[StopAt(5, ZeroDivisionError())]
        )
    run_stage(configure(logging_steps=3), out=tmp_path / "cut", progress=QUIET)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "cut")) == 2


def test_damaged_newest_state_falls_back_to_the_one_before(configure: Configure, tmp_path: Path) -> None:
    config = configure(save_total_limit=2)
    whole = run_stage(config, out=tmp_path / "whole", progress=QUIET)
    with pytest.raises(ZeroDivisionError):
        run_stage(config, out=tmp_path / "cut", progress=QUIET, callbacks=[StopAt(5, ZeroDivisionError())])
    newest = saved_states(tmp_path / "cut")[0]
    (newest / "state.pt").write_bytes((newest / "state.pt").read_bytes()[:-100])
    assert run_stage(config, out=tmp_path / "cut", progress=QUIET).digest == whole.digest


def test_retention_keeps_the_newest(configure: Configure, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    class Watch(Callback):
        def on_save(self, step: int, folder: Path) -> None:
            seen.append([path.name for path in saved_states(folder.parent)])

    run_stage(configure(save_total_limit=2, save_steps=1), out=tmp_path / "run", progress=QUIET, callbacks=[Watch()])
    assert seen[-1] == ["checkpoint-6", "checkpoint-5"]
    assert len(seen) == 6


def test_finished_stage_is_not_trained_again(configure: Configure, tmp_path: Path) -> None:
    first = run_stage(configure(), out=tmp_path / "run", progress=QUIET)
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    again = run_stage(configure(workers=0, logging_steps=3), out=tmp_path / "run", progress=QUIET)
    assert again.digest == first.digest
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused(configure: Configure, tmp_path: Path) -> None:
    run_stage(configure(), out=tmp_path / "run", progress=QUIET)
    with pytest.raises(ConfigError) as caught:
        run_stage(configure(lr=0.01), out=tmp_path / "run", progress=QUIET)
    assert "lr: 0.05 -> 0.01" in str(caught.value)
    assert caught.value.hint


def test_other_data_in_the_middle_of_a_run_is_refused(configure: Configure, data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_stage(configure(), out=tmp_path / "run", progress=QUIET, callbacks=[StopAt(3, ZeroDivisionError())])
    rows = json.loads((data_folder / "data.json").read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps(rows[:30]))
    with pytest.raises(ConfigError, match="data: "):
        run_stage(configure(data=str(other), image_root=str(data_folder)), out=tmp_path / "run", progress=QUIET)


def test_missing_file_of_a_finished_stage_is_named(configure: Configure, tmp_path: Path) -> None:
    run_stage(configure(), out=tmp_path / "run", progress=QUIET)
    (tmp_path / "run" / "model.pt").unlink()
    with pytest.raises(DataError, match=r"model\.pt"):
        run_stage(configure(), out=tmp_path / "run", progress=QUIET)


def test_moved_inputs_are_the_same_inputs(configure: Configure, data_folder: Path, tmp_path: Path) -> None:
    first = run_stage(configure(), out=tmp_path / "run", progress=QUIET)
    copy = tmp_path / "copy.json"
    copy.write_bytes((data_folder / "data.json").read_bytes())
    again = run_stage(configure(data=str(copy), image_root=str(data_folder)), out=tmp_path / "run", progress=QUIET)
    assert again.digest == first.digest


def test_stage_one_feeds_stage_two(configure: Configure, tmp_path: Path) -> None:
    first = run_stage(configure(stage=1), out=tmp_path / "one", progress=QUIET)
    assert set(first.files) == {"config.json", "mm_projector.bin", "rejected.jsonl"}
    second = run_stage(configure(adapter=str(tmp_path / "one")), out=tmp_path / "two", progress=QUIET)
    assert second.parents["adapter"] == first.digest
    plain = run_stage(configure(), out=tmp_path / "three", progress=QUIET)
    assert plain.facts["weights_digest"] != second.facts["weights_digest"]


def test_continuing_from_a_checkpoint(configure: Configure, tmp_path: Path) -> None:
    first = run_stage(configure(), out=tmp_path / "one", progress=QUIET)
    second = run_stage(configure(init_from=str(tmp_path / "one")), out=tmp_path / "two", progress=QUIET)
    assert second.parents["init_from"] == first.digest
    assert losses(tmp_path / "two")[0] < losses(tmp_path / "one")[0]


def test_workers_and_cache_do_not_change_the_result(configure: Configure, tmp_path: Path) -> None:
    digests = {
        run_stage(configure(workers=workers, pixel_cache_bytes=size), out=tmp_path / str(n), progress=QUIET).digest
        for n, (workers, size) in enumerate([(0, 0), (1, 10**6), (3, 300)])
    }
    assert len(digests) == 1


def test_interrupt_saves_and_says_how_to_go_on(configure: Configure, tmp_path: Path) -> None:
    import os
    import signal

    class Press(Callback):
        def on_step(self, view: StepView) -> None:
            if view.step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    whole = run_stage(configure(), out=tmp_path / "whole", progress=QUIET)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(RunInterrupted) as caught:
        run_stage(configure(save_steps=100), out=tmp_path / "cut", progress=QUIET, callbacks=[Press()])
    assert signal.getsignal(signal.SIGINT) is handler
    assert caught.value.exit_code == 130
    step = int(saved_states(tmp_path / "cut")[0].name.removeprefix("checkpoint-"))
    assert step in (3, 4)
    assert run_stage(configure(save_steps=100), out=tmp_path / "cut", progress=QUIET).digest == whole.digest


def test_second_writer_is_refused(configure: Configure, tmp_path: Path) -> None:
    class Intrude(Callback):
        def on_step(self, view: StepView) -> None:
            with pytest.raises(ConfigError, match="another process"):
                run_stage(configure(), out=tmp_path / "run", progress=QUIET)
            seen.append(view.step)

    seen: list[int] = []
    run_stage(configure(), out=tmp_path / "run", progress=QUIET, callbacks=[Intrude()])
    assert len(seen) == 6


def test_batch_arithmetic_is_checked(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 x 2 x 1 = 6"):
        run_stage(configure(per_device_batch_size=3), out=tmp_path / "run", progress=QUIET)
    assert not (tmp_path / "run").exists()


def facts_of(out: Path) -> dict[str, Any]:
    return dict(Artifact.load(out).facts)


def test_both_normalisations_train(configure: Configure, tmp_path: Path) -> None:
    for name in ("tokens", "micro_batch"):
        run_stage(configure(loss_normalization=name), out=tmp_path / name, progress=QUIET)
    assert losses(tmp_path / "tokens") != losses(tmp_path / "micro_batch")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_train_and_resume(configure: Configure, tmp_path: Path, precision: str) -> None:
    config = configure(precision=precision, epochs=2)
    whole = run_stage(config, out=tmp_path / "whole", progress=QUIET)
    with pytest.raises(ZeroDivisionError):
        run_stage(config, out=tmp_path / "cut", progress=QUIET, callbacks=[StopAt(5, ZeroDivisionError())])
    assert run_stage(config, out=tmp_path / "cut", progress=QUIET).digest == whole.digest
    assert losses(tmp_path / "whole")[-1] < losses(tmp_path / "whole")[0]
    assert facts_of(tmp_path / "whole")["skipped_steps"] == 0


def test_crash_while_finishing_is_mended_by_running_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_stage(configure(), out=tmp_path / "whole", progress=QUIET)

    def crash(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(stages, "write_manifest", crash)
        with pytest.raises(ZeroDivisionError):
            run_stage(configure(), out=tmp_path / "cut", progress=QUIET)
    (tmp_path / "cut" / ".checkpoint-9.tmp").mkdir()
    (tmp_path / "cut" / ".checkpoint-9.tmp" / "state.pt").write_bytes(b"half")
    assert run_stage(configure(), out=tmp_path / "cut", progress=QUIET).digest == whole.digest
    left = {path.name for path in (tmp_path / "cut").iterdir()}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}
    assert not any(name.startswith((".", "checkpoint-")) for name in left)


def test_pictures_that_vanish_between_crash_and_rerun_are_noticed(
    configure: Configure, data_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(data_folder / "images", tmp_path / "images")
    config = configure(image_root=str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        run_stage(config, out=tmp_path / "run", progress=QUIET, callbacks=[StopAt(3, ZeroDivisionError())])
    (tmp_path / "images" / "4.png").unlink()
    with pytest.raises(DataError, match="other samples are usable now"):
        run_stage(config, out=tmp_path / "run", progress=QUIET)


def test_second_run_with_other_settings_leaves_the_first_ones_record_alone(
    configure: Configure, tmp_path: Path
) -> None:
    class Intrude(Callback):
        def on_step(self, view: StepView) -> None:
            if view.step == 1:
                with pytest.raises(ConfigError, match="another process"):
                    run_stage(configure(lr=0.01), out=tmp_path / "run", progress=QUIET)
            if view.step == 3:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_stage(configure(), out=tmp_path / "run", progress=QUIET, callbacks=[Intrude()])
    run_stage(configure(), out=tmp_path / "run", progress=QUIET)


def test_ctrl_c_before_the_first_step_is_resumable_too(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "prepare", press)
    with pytest.raises(RunInterrupted):
        run_stage(configure(), out=tmp_path / "run", progress=QUIET)
