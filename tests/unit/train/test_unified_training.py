"""Joint training of texts and pictures by the one trainer: normalisation, packs, resume, average, frozen parts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from bettersynth.config.train import StageConfig, stage_config
from bettersynth.core.errors import ConfigError, ConfigErrors, DataError
from bettersynth.formats.unified import refuse
from bettersynth.models.bagel.convert import load_checkpoint
from bettersynth.models.bagel.processor import UnifiedProcessor
from bettersynth.models.stream import TensorReader
from bettersynth.train import trainer
from bettersynth.train.callbacks import Callback, read_log
from bettersynth.train.plan import plan_stage
from bettersynth.train.stages import run_stage
from bettersynth.train.unified_data import check_file, read_sources

KIT = Path(__file__).with_name("unified_kit.py")
QUIET = Callback()


@pytest.fixture(scope="module")
def folder(unified_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: some tests change its files."""
    return Path(shutil.copytree(unified_folder, tmp_path_factory.mktemp("training") / "unified"))


@pytest.fixture
def configure(unified_kit: ModuleType, folder: Path) -> Callable[..., StageConfig]:
    return lambda **changes: stage_config(unified_kit.settings(folder, **changes))


def _log(out: Path, key: str) -> list[float]:
    return [line[key] for line in read_log(out / "train_log.jsonl")]


def test_both_losses_go_down_and_the_folder_loads(configure: Any, folder: Path, tmp_path: Path) -> None:
    config = configure(epochs=10, lr=0.02, unified={"learn_next_kind": True, "state_dict_file": True})
    artifact = run_stage(config, out=tmp_path / "run", progress=QUIET)
    for key, share in (("text_loss", 0.75), ("image_loss", 0.99)):
        losses = _log(tmp_path / "run", key)
        assert sum(losses[-5:]) < share * sum(losses[:5]), key
    assert artifact.facts["samples_by_kind"] == {"mixed": 15, "text": 9}
    assert artifact.facts["target_tokens"] > 0 and artifact.facts["rows"] == artifact.facts["rows_trained"] == 24
    model = load_checkpoint(tmp_path / "run", dtype=torch.float32)
    plain = load_checkpoint(tmp_path / "run", dtype=torch.float32, weights=tmp_path / "run" / "trained_model.pt")
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert (tmp_path / "run" / "tokenizer.json").is_file() and (tmp_path / "run" / "ae.safetensors").is_file()


def test_the_split_of_a_step_changes_nothing(configure: Any, tmp_path: Path) -> None:
    """One large batch, single samples, and packs by tokens: the same losses and gradients."""
    ways = {"large": {"per_device_batch_size": 8}, "single": {"per_device_batch_size": 1}}
    ways["packs"] = {"unified": {"pack_tokens": 200}}
    found = {}
    for name, change in ways.items():
        run_stage(configure(epochs=1, **change), out=tmp_path / name, progress=QUIET)
        found[name] = {key: _log(tmp_path / name, key) for key in ("loss", "text_loss", "image_loss", "grad_norm")}
    for name in ("single", "packs"):
        for key, values in found["large"].items():
            assert found[name][key] == pytest.approx(values, rel=2e-4), (name, key)


def test_the_weights_of_the_losses_count(configure: Any, tmp_path: Path) -> None:
    settings = {"text_loss_weight": 0.5, "image_loss_weight": 2.0}
    run_stage(configure(epochs=1, unified=settings), out=tmp_path / "run", progress=QUIET)
    for line in read_log(tmp_path / "run" / "train_log.jsonl"):
        assert line["loss"] == pytest.approx(0.5 * line["text_loss"] + 2.0 * line["image_loss"], rel=1e-6)


def test_one_kind_alone_trains(unified_kit: ModuleType, folder: Path, configure: Any, tmp_path: Path) -> None:
    every = unified_kit.records()
    for name, number in (("image", 0), ("text", 4)):
        path = folder / f"only_{name}.jsonl"
        path.write_text("".join(json.dumps(item) + "\n" for item in every[number::5]))
        notes: list[str] = []

        class Notes(Callback):
            def on_note(self, text: str) -> None:
                notes.append(text)  # noqa: B023

        run_stage(configure(data=str(path), epochs=1), out=tmp_path / name, progress=Notes())
        assert set(read_log(tmp_path / name / "train_log.jsonl")[-1]) & {"text_loss", "image_loss"} == {f"{name}_loss"}
        assert any("out of balance" in note for note in notes)


def test_the_average_follows_the_weights(configure: Any, tmp_path: Path) -> None:
    class Probe(Callback):
        def __init__(self) -> None:
            self.weights: list[torch.Tensor] = []

        def on_step(self, view: Any) -> None:
            self.weights.append(view.model.vae2llm.weight.detach().clone())

    probe = Probe()
    config = configure(unified={"ema_decay": 0.5})
    start = load_checkpoint(config.init_from, dtype=torch.float32).vae2llm.weight.detach()
    run_stage(config, out=tmp_path / "run", progress=QUIET, callbacks=[probe])
    for weights in probe.weights:
        start = 0.5 * start + 0.5 * weights
    with TensorReader(tmp_path / "run" / "ema.safetensors") as reader:
        assert torch.allclose(reader.read("vae2llm.weight", torch.float32), start, atol=1e-6)
    with TensorReader(tmp_path / "run" / "model.safetensors") as reader:
        assert torch.equal(reader.read("vae2llm.weight", torch.float32), probe.weights[-1])


def _script(config: Path, out: Path, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KILL_AT": str(kill_at), "OMP_NUM_THREADS": str(torch.get_num_threads())}  # the same bits
    return subprocess.run([sys.executable, str(KIT), str(config), str(out)], env=env, capture_output=True, text=True)


def test_a_killed_run_ends_with_the_same_bits(unified_kit: ModuleType, folder: Path, tmp_path: Path) -> None:
    settings = unified_kit.settings(
        folder, workers=2, val_data=str(folder / "val.jsonl"), unified={"ema_decay": 0.9, "pack_tokens": 200}
    )
    (tmp_path / "c.json").write_text(json.dumps(settings))
    whole = run_stage(stage_config(settings), out=tmp_path / "whole", progress=QUIET)
    killed = _script(tmp_path / "c.json", tmp_path / "cut", kill_at=5)
    assert killed.returncode == -9 and (tmp_path / "cut" / "checkpoint-4").is_dir()
    again = run_stage(stage_config({**settings, "workers": 0}), out=tmp_path / "cut", progress=QUIET)
    assert again.facts["weights_digest"] == whole.facts["weights_digest"]
    for name in ("ema.safetensors", "model.safetensors", "validation.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert _log(tmp_path / "cut", "image_loss") == _log(tmp_path / "whole", "image_loss")
    best = json.loads((tmp_path / "cut" / "best" / "best.json").read_text())
    lines = read_log(tmp_path / "cut" / "validation.jsonl")
    assert best["loss"] == min(line["loss"] for line in lines) and len(lines) == 3
    assert load_checkpoint(tmp_path / "cut" / "best", dtype=torch.float32).tokenizer_folder


@pytest.mark.parametrize(
    ("parts", "moves", "stays"),
    [
        (
            ["und"],
            ["language_model.model.layers.0.mlp_moe_gen.up_proj.weight", "llm2vae.weight"],
            [
                "language_model.model.layers.0.mlp.up_proj.weight",
                "language_model.lm_head.weight",
                "connector.fc1.weight",
            ],
        ),
        (
            ["gen", "vit"],
            ["language_model.model.layers.0.mlp.up_proj.weight", "connector.fc1.weight"],
            ["llm2vae.weight", "time_embedder.mlp.0.weight", "vit_model.vision_model.post_layernorm.weight"],
        ),
        (["llm", "vae"], ["vae2llm.weight", "connector.fc1.weight"], ["language_model.model.embed_tokens.weight"]),
    ],
)
def test_frozen_parts_stay(
    configure: Any, tmp_path: Path, parts: list[str], moves: list[str], stays: list[str]
) -> None:
    config = configure(epochs=1, unified={"freeze": parts})
    before = load_checkpoint(config.init_from, dtype=torch.float32).state_dict()
    run_stage(config, out=tmp_path / "run", progress=QUIET)
    after = load_checkpoint(tmp_path / "run", dtype=torch.float32).state_dict()
    for name in stays:
        assert torch.equal(before[name], after[name]), name
    for name in moves:
        assert not torch.equal(before[name], after[name]), name


def test_a_mixture_is_shown_in_its_weights(folder: Path, configure: Any, tmp_path: Path) -> None:
    (folder / "mix.yaml").write_text(
        "datasets:\n  - {data: train.jsonl, weight: 3, max_samples: 10}\n  - {data: val.jsonl, weight: 1}\n"
    )
    artifact = run_stage(
        configure(data=str(folder / "mix.yaml"), epochs=1, samples_seen=16), out=tmp_path / "run", progress=QUIET
    )
    assert (artifact.facts["rows"], artifact.facts["rows_trained"], artifact.facts["rows_sampled_out"]) == (34, 20, 14)
    (folder / "val.jsonl").write_text((folder / "val.jsonl").read_text() + "\n")
    with pytest.raises(Exception, match="other settings or inputs"):
        run_stage(
            configure(data=str(folder / "mix.yaml"), epochs=1, samples_seen=16), out=tmp_path / "run", progress=QUIET
        )


def test_mistakes_of_a_mixture_are_listed_together(folder: Path) -> None:
    (folder / "bad.yaml").write_text(
        "datasets:\n  - {data: none.jsonl}\n  - {data: val.jsonl, wieght: 1}\n  - {data: val.jsonl, weight: -1}\n"
    )
    with pytest.raises(ConfigErrors) as caught:
        read_sources(folder / "bad.yaml", folder)
    for text in ("none.jsonl", "did you mean 'weight'", "above 0", "3 problems"):
        assert text in str(caught.value)


def test_bad_records_are_counted_or_stop_the_run_all_listed(
    unified_kit: ModuleType, folder: Path, configure: Any, tmp_path: Path
) -> None:
    path = folder / "some_bad.jsonl"
    rows = [*unified_kit.records(18), {"text_prompt": "x"}]
    rows += [{"id": "gone", "text_prompt": "x", "image_path": "images/no.png"}]
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    artifact = run_stage(configure(data=str(path), max_bad_ratio=0.2, epochs=1), out=tmp_path / "run", progress=QUIET)
    assert artifact.facts["rows_rejected"] == {"bad_record": 1, "bad_image": 1}
    assert artifact.facts["rows_trained"] == 18
    with pytest.raises(DataError) as caught:
        run_stage(configure(data=str(path), on_bad_sample="stop"), out=tmp_path / "stop", progress=QUIET)
    text = caught.value.render()
    assert "record 18" in text and "image_path: is missing" in text and "record 19 (gone)" in text and "no.png" in text


def test_a_picture_that_is_damaged_inside_is_left_out_while_training(
    unified_kit: ModuleType, folder: Path, configure: Any, tmp_path: Path
) -> None:
    data = (folder / "images" / "red.png").read_bytes()
    (folder / "images" / "cut.png").write_bytes(data[:45] + bytes(8) + data[53:])
    path = folder / "damaged.jsonl"
    rows = [*unified_kit.records(20), {"id": "cut", "text_prompt": "red", "image_path": "images/cut.png"}]
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    artifact = run_stage(configure(data=str(path), epochs=1), out=tmp_path / "run", progress=QUIET)
    assert artifact.facts["rows_rejected"] == {"bad_image": 1} and artifact.facts["rows_trained"] == 20
    rejected = (tmp_path / "run" / "rejected.jsonl").read_text()
    assert "cut.png" in rejected


def test_wrong_settings_are_refused_together(unified_kit: ModuleType) -> None:
    with pytest.raises(ConfigErrors) as caught:
        wrong = {"freeze": ["vea"], "dropout_text": 2, "txt_loss_weight": 1}
        stage_config(unified_kit.settings(Path("x"), unified=wrong))
    for text in ("freeze", "dropout_text", "txt_loss_weight"):
        assert text in str(caught.value)
    with pytest.raises(Exception, match="nothing would be learnt"):
        stage_config(unified_kit.settings(Path("x"), unified={"text_loss_weight": 0, "image_loss_weight": 0}))


def test_missing_and_damaged_pictures_are_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows = [{"id": "a", "text_prompt": "x", "image_path": "gone.png"}, {"text_prompt": "x", "image_path": "bad.png"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = check_file(tmp_path / "d.jsonl")
    assert [item.row for item in found] == [0, 1]
    text = refuse(found, tmp_path / "d.jsonl").render()
    assert "record 0 (a)" in text and "gone.png" in text and "image not found" in text and "record 1" in text
    assert "2 records cannot be used" in text


def test_low_rank_additions_leave_the_rest_and_respect_frozen_parts(configure: Any, tmp_path: Path) -> None:
    config = configure(epochs=1, lora={"rank": 2}, unified={"freeze": ["und"], "ema_decay": 0.5})
    before = load_checkpoint(config.init_from, dtype=torch.float32).state_dict()
    run_stage(config, out=tmp_path / "run", progress=QUIET)
    after = load_checkpoint(tmp_path / "run", dtype=torch.float32).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "language_model.model.layers.0.mlp_moe_gen.up_proj.weight" in moved and "llm2vae.weight" in moved
    assert all("_moe_gen" in name or name.startswith(("vae2llm", "llm2vae", "time_embedder")) for name in moved)
    assert (tmp_path / "run" / "lora" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora": {"rank": 10**6}}, "no layer is as wide as this rank"),
        ({"lora": {"rank": 2}, "unified": {"freeze": ["und", "gen"]}}, "leave out a part"),
        ({"unified": {"freeze": ["und", "gen"]}}, "leave out a part"),
    ],
)
def test_what_cannot_learn_is_refused_before_memory_is_taken(configure: Any, changes: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_stage(configure(**changes))


@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_frozen_weights_in_few_bits_train(configure: Any, tmp_path: Path, bits: str) -> None:
    run_stage(configure(lora={"rank": 2, "quantize": bits}, epochs=1), out=tmp_path / "run", progress=QUIET)
    plain = tmp_path / "plain"
    run_stage(configure(lora={"rank": 2}, epochs=1), out=plain, progress=QUIET)
    assert _log(tmp_path / "run", "loss") == pytest.approx(_log(plain, "loss"), rel=0.05)


def test_compiling_asks_every_layer(configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: asked.append(type(self).__name__))
    run_stage(configure(epochs=1, samples_seen=8, unified={"compile": True}), out=tmp_path / "run", progress=QUIET)
    assert asked == ["MotLayer"] * 2


def test_half_precision_and_checkpointed_layers_train(configure: Any, tmp_path: Path) -> None:
    found = {}
    ways: dict[str, dict[str, Any]] = {
        "fp32": {},
        "bf16": {"precision": "bf16"},
        "saved": {"gradient_checkpointing": True},
    }
    for name, change in {**ways, "one layer": {"gradient_checkpointing": 1}}.items():
        run_stage(configure(epochs=1, **change), out=tmp_path / name, progress=QUIET)
        found[name] = _log(tmp_path / name, "loss")
    assert found["saved"] == pytest.approx(found["fp32"], rel=1e-5) == found["one layer"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.03)


def test_grids_and_validations_are_reported_and_change_nothing(configure: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red picture\n\na blue picture\n")
    told: list[Any] = []

    class Report(Callback):
        def on_metrics(self, step: int, values: Any) -> None:
            told.append((step, sorted(values)))

        def on_pictures(self, step: int, path: Path) -> None:
            told.append((step, path.name))

    plain = run_stage(configure(unified={"ema_decay": 0.9}), out=tmp_path / "plain", progress=QUIET)
    settings = {"ema_decay": 0.9, "sample_prompts": tmp_path / "prompts.txt", "sample_timesteps": 3}
    settings |= {"sample_size": (24, 16)}
    out = tmp_path / "run"
    config = configure(val_data=str(folder / "val.jsonl"), eval_steps=4, unified=settings)
    run = run_stage(config, out=out, progress=QUIET, callbacks=[Report()])
    losses = ["image_loss", "loss", "text_loss"]
    assert told == [(4, losses), (4, "000004.png"), (6, losses), (6, "000006.png")]
    with Image.open(out / "samples" / "000006.png") as sheet:
        assert sheet.size == (24 * 2, 16 + 14)  # two pictures and the beginnings of their prompts
    assert run.facts["weights_digest"] == plain.facts["weights_digest"]
    with pytest.raises(DataError, match="file not found"):
        run_stage(configure(unified={"sample_prompts": "none.txt"}), out=tmp_path / "no", progress=QUIET)


@pytest.mark.parametrize("change", [{"unified": {"freeze": ["vit"]}}, {"lora": {"rank": 2}}], ids=str)
def test_what_frozen_networks_make_of_a_picture_is_computed_once(
    configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """For all epochs, and with a folder for all runs; not a bit of the result changes with the folder."""
    calls = {"vae": 0, "vit": 0}
    encode, see = UnifiedProcessor.moments, UnifiedProcessor.features

    def counted_encode(self: Any, pixels: Any) -> Any:
        calls["vae"] += 1
        return encode(self, pixels)

    def counted_see(self: Any, image: Any) -> Any:
        calls["vit"] += 1
        return see(self, image)

    plain = run_stage(configure(**change), out=tmp_path / "plain", progress=QUIET)
    monkeypatch.setattr(UnifiedProcessor, "moments", counted_encode)
    monkeypatch.setattr(UnifiedProcessor, "features", counted_see)
    cached = configure(feature_cache=tmp_path / "cache", **change)
    first = run_stage(cached, out=tmp_path / "first", progress=QUIET)
    made = dict(calls)
    assert made["vae"] >= 3 and made["vit"] >= 3  # three pictures, of one size each
    again = run_stage(cached, out=tmp_path / "again", progress=QUIET)
    assert calls == made
    assert plain.facts["weights_digest"] == first.facts["weights_digest"] == again.facts["weights_digest"]


def test_a_frozen_vision_encoder_gives_the_same_losses_picture_by_picture(
    configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(unified={"freeze": ["vit"]})
    run_stage(config, out=tmp_path / "alone", progress=QUIET)
    monkeypatch.setattr(trainer, "prepare_processor", lambda config, family, model, processor: processor)
    run_stage(config, out=tmp_path / "packed", progress=QUIET)
    assert _log(tmp_path / "alone", "loss") == pytest.approx(_log(tmp_path / "packed", "loss"), rel=1e-4)
