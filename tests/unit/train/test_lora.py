"""LoRA: what is trained, the PEFT file format, merging, exact resume, and its refusal in locked tracks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bettersynth.config.train import Lora, StageConfig
from bettersynth.core.errors import ConfigError, DataError, RuleError
from bettersynth.models.family import load_family
from bettersynth.train import lora
from bettersynth.train.bases import load_start
from bettersynth.train.callbacks import Callback, StepView, read_log
from bettersynth.train.merge import merge_adapter
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage

Configure = Callable[..., StageConfig]
QUIET = Callback()
SMALL = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def alone(mgm_configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage that ended with an adapter alone."""
    out = tmp_path_factory.mktemp("lora") / "alone"
    run_stage(mgm_configure(lora={**SMALL, "merge": False}), out=out, progress=QUIET)
    return out


@pytest.fixture(scope="module")
def whole(mgm_configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same stage with merged weights."""
    out = tmp_path_factory.mktemp("lora") / "whole"
    run_stage(mgm_configure(lora=SMALL), out=out, progress=QUIET)
    return out


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_log(out / "train_log.jsonl")]


def test_training_learns_and_moves_nothing_but_its_own(mgm_configure: Configure, alone: Path, whole: Path) -> None:
    found = losses(alone)
    assert found[-1] < found[0] - 0.2
    assert found == losses(whole)
    start = load_start(mgm_configure(), load_family("mgm"))
    merged = load_family("mgm").load_checkpoint(whole, dtype=torch.float32)
    before = dict(start.named_parameters())
    moved = {name for name, value in merged.named_parameters() if not torch.equal(value, before[name])}
    sites = lora.sites(load_family("mgm"), start)
    assert {name for name in moved if "layers" in name} == {
        f"{name}.weight" for name, _ in start.named_modules() if re.fullmatch(sites.pattern, name)
    }
    assert all("tower" not in name and "embed" not in name and "norm" not in name.split(".")[2] for name in moved)


def test_adapter_has_the_files_and_names_of_peft(alone: Path, whole: Path) -> None:
    fields = json.loads((alone / "adapter_config.json").read_text())
    assert (fields["peft_type"], fields["r"], fields["lora_alpha"], fields["bias"]) == ("LORA", 4, 8, "none")
    tensors = load_file(alone / "adapter_model.safetensors")
    pairs = {name.rpartition(".lora_")[0] for name in tensors if ".lora_" in name}
    assert all(re.fullmatch(fields["target_modules"], name.removeprefix("base_model.model.")) for name in pairs)
    rest = {name for name in tensors if ".lora_" not in name}
    assert {name.split(".")[3] for name in rest} == set(fields["modules_to_save"])
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert not list(alone.glob("model*.safetensors"))
    assert load_file(whole / "lora" / "adapter_model.safetensors").keys() == tensors.keys()
    assert not (whole / "adapter_config.json").exists()  # libraries would add it to weights that hold it already
    assert json.loads((whole / "manifest.json").read_text())["files"].keys() >= {"lora/adapter_config.json"}


def test_merge_gives_the_bytes_that_training_with_merge_gives(
    mgm_configure: Configure, alone: Path, whole: Path, tmp_path: Path
) -> None:
    artifact = merge_adapter(alone, tmp_path / "merged", model_zoo=mgm_configure().model_zoo)
    for path in whole.glob("model-*"):
        assert (tmp_path / "merged" / path.name).read_bytes() == path.read_bytes()
    assert artifact.facts["merged"] is True
    assert json.loads((tmp_path / "merged" / "config.json").read_text()) == json.loads(
        (whole / "config.json").read_text()
    )


def test_merge_refuses_other_weights_and_missing_ones(
    mgm_configure: Configure, alone: Path, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="trained on other weights"):
        merge_adapter(alone, tmp_path / "a", init_from=whole)
    with pytest.raises(ConfigError, match="are needed"):
        merge_adapter(alone, tmp_path / "a")
    with pytest.raises(DataError, match="no LoRA adapter"):
        merge_adapter(whole, tmp_path / "a", init_from=whole)
    with pytest.raises(ConfigError, match="2 problems") as refused:
        merge_adapter(tmp_path / "nowhere", whole, model_zoo=mgm_configure().model_zoo)
    assert "no LoRA adapter" in refused.value.body() and "not empty" in refused.value.body()
    with pytest.raises(ConfigError, match="not empty"):
        merge_adapter(alone, whole, model_zoo=mgm_configure().model_zoo)


def test_merged_layer_computes_the_same() -> None:
    generator = torch.Generator().manual_seed(1)
    base = nn.Linear(6, 5)
    layer = lora.LoraLinear(base, Lora(rank=2, alpha=6))
    layer.start(generator)
    x = torch.randn(3, 6, generator=generator)
    assert torch.equal(layer(x), base(x))  # B is zero: training begins at the frozen weights
    nn.init.normal_(layer.lora_B.weight, generator=generator)
    expected = base(x) + 3.0 * x @ layer.lora_A.weight.T @ layer.lora_B.weight.T
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert torch.allclose(layer.merged()(x), expected, atol=1e-6)
    layer(x).sum().backward()
    assert base.weight.grad is None and layer.lora_B.weight.grad is not None


@pytest.mark.parametrize("stop", [2, 5])
def test_crash_and_rerun_gives_the_same_adapter(
    mgm_configure: Configure, alone: Path, tmp_path: Path, stop: int
) -> None:
    class Crash(Callback):
        def on_step(self, view: StepView) -> None:
            if view.step == stop:
                raise ZeroDivisionError

    config = mgm_configure(lora={**SMALL, "merge": False})
    with pytest.raises(ZeroDivisionError):
        run_stage(config, out=tmp_path / "run", progress=QUIET, callbacks=[Crash()])
    run_stage(config, out=tmp_path / "run", progress=QUIET)
    assert (tmp_path / "run" / lora.WEIGHTS_FILE).read_bytes() == (alone / lora.WEIGHTS_FILE).read_bytes()
    assert losses(tmp_path / "run") == losses(alone)


def test_dropout_acts_in_training_only() -> None:
    layer = lora.LoraLinear(nn.Linear(64, 4), Lora(rank=2, alpha=2, dropout=0.5))
    nn.init.ones_(layer.lora_A.weight)
    nn.init.ones_(layer.lora_B.weight)
    x = torch.ones(1, 64)
    assert torch.equal(layer.eval()(x), layer(x))
    assert not torch.equal(layer.train()(x), layer(x))


def test_locked_tracks_refuse_it_and_stage_1_has_nothing_to_adapt() -> None:
    places = {"data": "d.json", "model_zoo": "zoo"}
    for track in ("online", "final", "10k"):
        with pytest.raises(RuleError) as caught:
            stage_settings(load_preset(track), 2, {**places, "lora": True})
        assert "lora changes how the model is trained" in caught.value.render()
    assert stage_settings(load_preset("solution"), 2, {**places, "lora": True}).lora == Lora()
    assert stage_settings(load_preset("10k"), 2, {**places, "lora": False}).lora is None
    with pytest.raises(ConfigError, match="no language model"):
        stage_settings(load_preset("solution"), 1, {**places, "lora": True})


def test_a_run_without_it_is_the_run_it_was(configure: Configure) -> None:
    assert "lora" not in configure().result_settings()
    assert configure(lora=True).result_settings()["lora"]["rank"] == 64


def test_a_family_without_it_says_so(fake_family: Any, configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no LoRA"):
        run_stage(configure(lora=True), out=tmp_path / "run", progress=QUIET)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"use_dora": True}, "use_dora"), ({"bias": "all"}, "bias all"), ({"peft_type": "IA3"}, "IA3")],
)
def test_other_kinds_of_adapters_are_refused(
    mgm_configure: Configure, alone: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    fields = json.loads((alone / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**fields, **changes}))
    (tmp_path / lora.WEIGHTS_FILE).write_bytes((alone / lora.WEIGHTS_FILE).read_bytes())
    with pytest.raises(DataError, match="not a plain LoRA adapter") as caught:
        lora.apply(nn.Linear(1, 1), tmp_path)
    assert message in caught.value.render()


def test_an_adapter_of_other_sizes_changes_nothing(mgm_configure: Configure, alone: Path, tmp_path: Path) -> None:
    tensors = load_file(alone / lora.WEIGHTS_FILE)
    name = next(name for name in tensors if name.endswith("lora_B.weight"))
    save_file({**tensors, name: torch.zeros(3, 4)}, tmp_path / lora.WEIGHTS_FILE)
    (tmp_path / "adapter_config.json").write_bytes((alone / "adapter_config.json").read_bytes())
    model = load_start(mgm_configure(), load_family("mgm"))
    before = {name: value.clone() for name, value in model.named_parameters()}
    with pytest.raises(DataError, match="does not fit"):
        lora.apply(model, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_peft_itself_reads_the_adapter(mgm_configure: Configure, alone: Path, whole: Path) -> None:
    peft = pytest.importorskip("peft")
    model = load_start(mgm_configure(), load_family("mgm"))
    loaded = peft.PeftModel.from_pretrained(model, str(alone)).merge_and_unload()
    expected = load_family("mgm").load_checkpoint(whole, dtype=torch.float32)
    for name, value in expected.named_parameters():
        assert torch.allclose(dict(loaded.named_parameters())[name], value, atol=1e-6), name
    # The language model alone takes it too, as the library's own class.
    gemma = transformers_gemma(mgm_configure)
    peft.PeftModel.from_pretrained(gemma, str(alone)).merge_and_unload()
    own = dict(gemma.named_parameters())
    for name, value in expected.named_parameters():
        if ".layers." in name and "tower" not in name:
            assert torch.allclose(own[name], value, atol=1e-6), name


def test_an_adapter_works_unmerged_in_what_the_auto_classes_hand_out(
    mgm_configure: Configure, alone: Path, whole: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    from bettersynth.models.mgm.auto_model import MgmGemmaForCausalLM

    family, config = load_family("mgm"), mgm_configure()
    model = load_start(config, family)
    family.processor(model, image_aspect_ratio="pad", max_length=160, image_root=tmp_path)
    family.save_checkpoint(model, tmp_path / "base", dtype=torch.float32)

    def logits(auto: nn.Module) -> torch.Tensor:
        tokens = auto.inner.config.tokens_per_image
        pixels = torch.arange(128 * 128 * 3).remainder(251).to(torch.uint8).view(1, 128, 128, 3)
        ids = torch.tensor([[2, *[-200] * tokens, 5, 6, 7]])
        with torch.no_grad():
            return auto(input_ids=ids, images=pixels).logits

    auto = MgmGemmaForCausalLM.from_pretrained(tmp_path / "base")
    before, expected = logits(auto), logits(MgmGemmaForCausalLM.from_pretrained(whole))
    adapted = peft.PeftModel.from_pretrained(auto.inner, str(alone))
    assert torch.allclose(logits(auto), expected, atol=1e-4)
    assert not torch.allclose(before, expected, atol=1e-2)
    with adapted.disable_adapter():
        assert torch.equal(logits(auto), before)
    adapted.merge_and_unload()
    assert torch.allclose(logits(auto), expected, atol=1e-4)


def transformers_gemma(mgm_configure: Configure) -> nn.Module:
    from transformers import AutoModelForCausalLM

    zoo = mgm_configure().model_zoo
    assert zoo is not None
    folder = next((zoo / "LLM" / "gemma").iterdir())
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
