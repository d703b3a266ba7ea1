"""Ways to train in less memory: offloading, 8-bit AdamW, frozen weights in few bits, checkpointing of some layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bettersynth.config.train import Lora, StageConfig
from bettersynth.core.errors import ConfigError, RuleError
from bettersynth.models.family import load_family
from bettersynth.models.layers.quantize import NF4_VALUES, FrozenWeight
from bettersynth.train import lora, memory
from bettersynth.train.adam8 import AdamW8bit, Codes, code_values
from bettersynth.train.bases import load_start
from bettersynth.train.callbacks import Callback, StepView, read_log
from bettersynth.train.merge import merge_adapter
from bettersynth.train.plan import plan_shapes, plan_stage
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage

Configure = Callable[..., StageConfig]
QUIET = Callback()
PLACES = {"data": "-", "model_zoo": "-"}


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    values = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_log(out / "train_log.jsonl")]


@pytest.fixture(scope="module")
def plain(mgm_configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage trained with nothing switched on."""
    out = tmp_path_factory.mktemp("memory") / "plain"
    run_stage(mgm_configure(), out=out, progress=QUIET)
    return out


# -- offloading --------------------------------------------------------------------------------------------------------


def test_offloading_in_fp32_changes_no_bit_and_is_as_planned(
    mgm_configure: Configure, plain: Path, tmp_path: Path
) -> None:
    config = mgm_configure(offload_optimizer=True, track_memory=True)
    plan = plan_stage(config)
    artifact = run_stage(config, out=tmp_path / "run", progress=QUIET)
    assert losses(tmp_path / "run") == losses(plain)
    for path in plain.glob("model-*"):
        assert (tmp_path / "run" / path.name).read_bytes() == path.read_bytes()
    assert artifact.run["peak_tensor_bytes"] == pytest.approx(plan.peak_bytes, rel=0.1)
    assert plan.memory_bytes[memory.GRADIENTS] == plan.memory_bytes[memory.OPTIMIZER] == 0
    weights = plan.trainable_parameters * 4
    assert artifact.run["offloaded_bytes"] == pytest.approx(4 * weights, rel=0.01)


def test_offloading_in_bf16_follows_and_resumes_exactly(mgm_configure: Configure, plain: Path, tmp_path: Path) -> None:
    class Crash(Callback):
        def on_step(self, view: StepView) -> None:
            if view.step == 4:
                raise ZeroDivisionError

    config = mgm_configure(offload_optimizer=True, precision="bf16")
    whole = run_stage(config, out=tmp_path / "whole", progress=QUIET)
    with pytest.raises(ZeroDivisionError):
        run_stage(config, out=tmp_path / "run", progress=QUIET, callbacks=[Crash()])
    resumed = run_stage(config, out=tmp_path / "run", progress=QUIET)
    assert resumed.facts["weights_digest"] == whole.facts["weights_digest"]
    assert losses(tmp_path / "run") == pytest.approx(losses(plain), rel=0.03)


def test_offloading_is_a_machine_setting_that_locked_tracks_allow(mgm_configure: Configure) -> None:
    assert stage_settings(load_preset("10k"), 2, {**PLACES, "offload_optimizer": True}).offload_optimizer
    assert mgm_configure(offload_optimizer=True).result_digest() == mgm_configure().result_digest()


def test_offloading_refuses_fp16(mgm_configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bf16 or fp32"):
        run_stage(mgm_configure(offload_optimizer=True, precision="fp16"), out=tmp_path / "run", progress=QUIET)


# -- 8-bit AdamW -------------------------------------------------------------------------------------------------------


def test_codes_are_near_and_never_lose_a_gradient() -> None:
    generator = torch.Generator().manual_seed(2)
    for is_signed in (True, False):
        assert len(set(code_values(is_signed=is_signed))) == 256
        kind = Codes(is_signed=is_signed, device=torch.device("cpu"))
        numbers = torch.randn(1000, generator=generator) * 10.0 ** torch.arange(-3, 1).repeat(250)
        numbers = numbers if is_signed else numbers.abs()
        codes, scale = torch.zeros(1000, dtype=torch.uint8), torch.zeros(4)
        kind.write(numbers, codes, scale)
        read = kind.read(codes, scale, 1000)
        assert (read - numbers).abs().max() < 0.02 * numbers.abs().max()
        large = numbers.abs() > 0.1 * numbers.abs().max()
        assert ((read - numbers).abs() / numbers.abs())[large].max() < 0.06
        if not is_signed:
            tiny = torch.tensor([1.0, 1e-30, 0.0])
            kind.write(tiny, codes[:3], scale[:1])
            assert (kind.read(codes[:3], scale[:1], 3) > 0).tolist() == [True, True, False]


def test_8_bit_steps_follow_full_steps() -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(128, 64, generator=generator)
    full, few = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    settings: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}
    optimizers = [torch.optim.AdamW([full], **settings), AdamW8bit([few], **settings)]
    for _ in range(30):
        grad = torch.randn(start.shape, generator=generator) + 0.5
        for parameter, optimizer in zip((full, few), optimizers, strict=True):
            parameter.grad = grad.clone()
            optimizer.step()
    moved = (full - start).abs().mean()
    assert (few - full).abs().mean() < 0.03 * moved
    assert (few - full).abs().max() < 0.15 * moved
    sizes = [state_bytes(optimizer) for optimizer in optimizers]
    assert sizes[1] < 0.26 * sizes[0]


def test_small_tensors_keep_float32_averages_and_the_exact_step() -> None:
    full, few = (nn.Parameter(torch.ones(10)) for _ in range(2))
    for parameter, kind in ((full, torch.optim.AdamW), (few, AdamW8bit)):
        optimizer = kind([parameter], lr=0.1, weight_decay=0.0)
        for value in (1.0, -2.0, 0.5):
            parameter.grad = torch.full((10,), value)
            optimizer.step()
    assert torch.allclose(full, few, atol=1e-6)


def test_8_bit_training_follows_and_resumes_exactly(mgm_configure: Configure, plain: Path, tmp_path: Path) -> None:
    class Crash(Callback):
        def on_step(self, view: StepView) -> None:
            if view.step == 5:
                raise ZeroDivisionError

    config = mgm_configure(optimizer="adamw_8bit")
    whole = run_stage(config, out=tmp_path / "whole", progress=QUIET)
    assert losses(tmp_path / "whole") == pytest.approx(losses(plain), rel=0.01)
    with pytest.raises(ZeroDivisionError):
        run_stage(config, out=tmp_path / "run", progress=QUIET, callbacks=[Crash()])
    assert run_stage(config, out=tmp_path / "run", progress=QUIET).digest == whole.digest


def test_locked_tracks_refuse_8_bits() -> None:
    with pytest.raises(RuleError, match="locks these settings"):
        stage_settings(load_preset("online"), 2, {**PLACES, "optimizer": "adamw_8bit"})


# -- frozen weights in few bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "error", "bytes_per_number"), [("nf4", 0.11, 0.57), ("int8", 0.01, 1.1)])
def test_few_bits_are_near_and_small(kind: str, error: float, bytes_per_number: float) -> None:
    weight = torch.randn(96, 100, generator=torch.Generator().manual_seed(4))
    frozen = FrozenWeight(weight, kind)
    assert (frozen.dense() - weight).norm() < error * weight.norm()
    assert torch.equal(FrozenWeight(frozen.dense(), kind).dense(), frozen.dense())  # rounding twice is rounding once
    assert sum(buffer.nbytes for buffer in frozen.buffers()) < bytes_per_number * weight.numel()
    assert torch.equal(FrozenWeight(torch.zeros(4, 64), kind).dense(), torch.zeros(4, 64))


def test_nf4_takes_the_nearest_of_its_values() -> None:
    weight = torch.linspace(-2, 2, 64).view(1, 64)
    values = 2 * torch.tensor(NF4_VALUES)
    nearest = values[(weight.view(-1, 1) - values).abs().argmin(1)]
    assert torch.equal(FrozenWeight(weight, "nf4").dense().view(-1), nearest)


def test_nf4_is_that_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(128, 256, generator=torch.Generator().manual_seed(6))
    expected = functional.dequantize_nf4(*functional.quantize_nf4(weight, blocksize=64))
    assert torch.equal(FrozenWeight(weight, "nf4").dense(), expected)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_gradients_go_through_a_few_bit_layer(kind: str) -> None:
    weight, x = torch.randn(8, 64), torch.randn(3, 64, requires_grad=True)
    frozen = FrozenWeight(weight, kind)
    bias = torch.ones(8)
    frozen.linear(x, bias).square().sum().backward()
    other = x.detach().clone().requires_grad_()
    F.linear(other, frozen.dense(), bias).square().sum().backward()
    assert torch.allclose(x.grad, other.grad, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert frozen.linear(x, bias).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_qlora_trains_merges_and_is_as_planned(mgm_configure: Configure, tmp_path: Path, kind: str) -> None:
    settings = {"rank": 4, "alpha": 8, "quantize": kind}
    config = mgm_configure(lora=settings, precision="bf16", track_memory=True)
    plan = plan_stage(config)
    artifact = run_stage(config, out=tmp_path / "whole", progress=QUIET)
    assert losses(tmp_path / "whole")[-1] < losses(tmp_path / "whole")[0] - 0.1
    assert artifact.run["peak_tensor_bytes"] == pytest.approx(plan.peak_bytes, rel=0.1)
    assert artifact.run["peak_tensor_parts"][memory.FROZEN] == plan.memory_bytes[memory.FROZEN]
    alone = mgm_configure(lora={**settings, "merge": False}, precision="bf16")
    run_stage(alone, out=tmp_path / "alone", progress=QUIET)
    merge_adapter(tmp_path / "alone", tmp_path / "merged", model_zoo=config.model_zoo)
    for path in (tmp_path / "whole").glob("model-*"):
        assert (tmp_path / "merged" / path.name).read_bytes() == path.read_bytes()


def test_a_few_bit_layer_holds_no_dense_weight() -> None:
    layer = lora.LoraLinear(nn.Linear(64, 32), Lora(rank=2, quantize="nf4"))
    assert layer.weight is None
    assert {name for name, _ in layer.named_parameters()} == {"bias", "lora_A.weight", "lora_B.weight"}


# -- checkpointing -----------------------------------------------------------------------------------------------------


def test_some_layers_are_recomputed_and_nothing_else_changes(
    mgm_configure: Configure, plain: Path, tmp_path: Path
) -> None:
    model = load_start(mgm_configure(), load_family("mgm"))
    model.gradient_checkpointing_enable(1)
    assert [layer.gradient_checkpointing for layer in model.model.layers] == [True, False]
    run_stage(mgm_configure(gradient_checkpointing=1), out=tmp_path / "run", progress=QUIET)
    assert losses(tmp_path / "run") == pytest.approx(losses(plain), rel=1e-5)


@pytest.mark.slow
def test_mgm_2b_fits_the_cards_it_should() -> None:
    """Stage 1 and full stage 2 by offloading on 24 GB with at most 100 GB of host memory; few-bit LoRA with 32 GB."""
    first = stage_settings(load_preset("10k"), 1, PLACES)
    second = stage_settings(load_preset("10k"), 2, {**PLACES, "offload_optimizer": True})
    few = stage_settings(load_preset("solution"), 2, {**PLACES, "max_samples": 12000, "lora": {"quantize": "nf4"}})
    for config, host_gb in ((first, 32), (second, 100), (few, 32)):
        plan = plan_shapes(config, "mgm_2b")
        assert plan.host_bytes < host_gb * 1e9
        assert next(card for card in plan.cards if card.name == "RTX 4090").fits, plan.memory_bytes
