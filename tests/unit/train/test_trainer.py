"""The loop's own promises: one step's arithmetic, non-finite values, what is trained, determinism."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.models.family import LossOutput
from bettersynth.train import stages
from bettersynth.train.callbacks import Callback, StepView, read_log
from bettersynth.train.checkpoint import saved_states, weights_digest
from bettersynth.train.distributed import Devices, choose_device
from bettersynth.train.prepare import prepare_model, settle
from bettersynth.train.stages import run_stage

Configure = Callable[..., StageConfig]
QUIET = Callback()
CPU = Devices(0, 1, torch.device("cpu"))


def use(monkeypatch: pytest.MonkeyPatch, family: Any) -> None:
    monkeypatch.setattr(stages, "load_family", lambda name: family)


class Probe(Callback):
    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_step(self, view: StepView) -> None:
        self.weights.append(view.model.get_parameter("connector.weight").detach().clone())


@pytest.mark.parametrize("normalization", ["tokens", "micro_batch"])
def test_gradient_is_the_mean_that_was_asked_for(
    fake: ModuleType, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalization: str
) -> None:
    """Recompute the first step's gradient from the recorded forward passes."""
    passes: list[tuple[Any, int]] = []

    class Recorder(fake.FakeFamily):
        def loss(self, model: Any, batch: Any) -> LossOutput:
            model.dropout.p = 0.0
            output = super().loss(model, batch)
            grad = torch.autograd.grad(output.loss_sum, model.head.weight, retain_graph=True)[0]
            passes.append((grad, int(output.num_targets)))
            return output

    use(monkeypatch, Recorder())
    run_stage(configure(loss_normalization=normalization, workers=0), out=tmp_path / "run", progress=QUIET)
    norms = [line["grad_norm"] for line in read_log(tmp_path / "run" / "train_log.jsonl")]
    first, second = passes[0], passes[1]
    if normalization == "tokens":
        expected = (first[0] + second[0]) / (first[1] + second[1])
    else:
        expected = (first[0] / first[1] + second[0] / second[1]) / 2
    assert norms[0] >= float(expected.norm())  # the head is a part of all gradients

    class OnlyHead(Recorder):
        def trainable(self, model: Any, stage: int) -> Any:
            return [("head.weight", model.head.weight)]

    passes.clear()
    use(monkeypatch, OnlyHead())
    run_stage(configure(loss_normalization=normalization, workers=0), out=tmp_path / "head", progress=QUIET)
    norms = [line["grad_norm"] for line in read_log(tmp_path / "head" / "train_log.jsonl")]
    assert norms[0] == pytest.approx(float(expected.norm()), rel=1e-5)


def test_accumulation_equals_one_big_batch_per_token(
    fake: ModuleType, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoDropout(fake.FakeFamily):
        def loss(self, model: Any, batch: Any) -> LossOutput:
            model.dropout.p = 0.0
            return super().loss(model, batch)

    use(monkeypatch, NoDropout())
    found = []
    for size in (1, 2, 8):
        run_stage(configure(per_device_batch_size=size), out=tmp_path / str(size), progress=QUIET)
        found.append([line["loss"] for line in read_log(tmp_path / str(size) / "train_log.jsonl")])
    assert found[0] == pytest.approx(found[2], rel=1e-5)
    assert found[1] == pytest.approx(found[2], rel=1e-5)


def test_first_step_has_rate_zero_and_changes_nothing(
    fake_family: ModuleType, configure: Configure, tmp_path: Path
) -> None:
    probe = Probe()
    run_stage(configure(), out=tmp_path / "run", progress=QUIET, callbacks=[probe])
    start = fake_family.FakeFamily().load_base(None, dtype=torch.float32, seed=3).connector.weight
    assert torch.equal(probe.weights[0], start)
    assert not torch.equal(probe.weights[1], start)


def test_only_the_stages_parameters_move(fake: ModuleType, configure: Configure) -> None:
    model = fake.FakeModel()
    config = configure(stage=1, precision="bf16")
    prepare_model(config, fake.FakeFamily(), model)
    settle(config, model.parameters(), torch.device("cpu"))
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert [name for name, _ in trained] == ["connector.weight", "connector.bias"]
    assert all(parameter.dtype == torch.float32 for _, parameter in trained)
    assert model.head.weight.dtype == torch.bfloat16
    assert not model.head.weight.requires_grad


def test_gradient_checkpointing_is_asked_for_or_refused(fake: ModuleType, configure: Configure) -> None:
    model = fake.FakeModel()
    prepare_model(configure(gradient_checkpointing=True), fake.FakeFamily(), model)
    assert model.checkpointed

    class Without(fake.FakeFamily):
        enable_gradient_checkpointing = None

    with pytest.raises(ConfigError, match="gradient checkpointing"):
        prepare_model(configure(gradient_checkpointing=True), Without(), fake.FakeModel())


def test_nothing_trainable_is_an_error(fake: ModuleType, configure: Configure) -> None:
    class Frozen(fake.FakeFamily):
        def trainable(self, model: Any, stage: int) -> list[Any]:
            return []

    with pytest.raises(ConfigError, match="nothing is trainable"):
        prepare_model(configure(), Frozen(), fake.FakeModel())


def test_non_finite_loss_names_step_and_samples_and_keeps_the_last_state(
    fake: ModuleType, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    class Bad(fake.FakeFamily):
        def loss(self, model: Any, batch: Any) -> LossOutput:
            calls.append(1)
            output = super().loss(model, batch)
            return LossOutput(output.loss_sum * (float("nan") if len(calls) == 9 else 1.0), output.num_targets)

    use(monkeypatch, Bad())
    with pytest.raises(BetterSynthError, match="loss is not finite at step 5") as caught:
        run_stage(configure(), out=tmp_path / "run", progress=QUIET)
    assert "s0" in str(caught.value.where)
    assert caught.value.exit_code == 1
    assert [path.name for path in saved_states(tmp_path / "run")] == ["checkpoint-4"]
    assert len(read_log(tmp_path / "run" / "train_log.jsonl")) == 4


def test_fp16_overflow_skips_the_step_and_lowers_the_scale(
    fake: ModuleType, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    class Steep(fake.FakeFamily):
        def loss(self, model: Any, batch: Any) -> LossOutput:
            calls.append(1)
            output = super().loss(model, batch)
            model.head.weight.register_hook(lambda grad: grad * float("inf")) if len(calls) == 1 else None
            if len(calls) == 2:
                model.head.weight._backward_hooks.clear()
            return output

    use(monkeypatch, Steep())
    artifact = run_stage(configure(precision="fp16"), out=tmp_path / "run", progress=QUIET)
    assert artifact.facts["skipped_steps"] == 1


def test_global_state_is_put_back(fake_family: ModuleType, configure: Configure, tmp_path: Path) -> None:
    run_stage(configure(tf32=True), out=tmp_path / "run", progress=QUIET)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cuda.matmul.allow_tf32


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown device"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="not there"):
            choose_device("cuda:0")


def test_weights_digest_sees_every_bit() -> None:
    weights = [("a", torch.zeros(3)), ("b", torch.ones(2, dtype=torch.bfloat16))]
    changed = [("a", torch.tensor([0.0, -0.0, 0.0])), weights[1]]
    assert weights_digest(weights) == weights_digest(reversed(weights)) != weights_digest(changed)


def test_read_only_output_is_a_clear_error(fake_family: ModuleType, configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BetterSynthError, match="cannot write the file"):
        run_stage(configure(), out=tmp_path / "file" / "run", progress=QUIET)
