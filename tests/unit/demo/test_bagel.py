"""The tiny BAGEL of the demo: closed-form latents, the start folder, records, and that training moves both losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bettersynth.core.errors import DataError
from bettersynth.demo.bagel import autoencoder, encoder
from bettersynth.demo.bagel.data import MIX, write_records
from bettersynth.demo.bagel.start import write_start
from bettersynth.demo.world.facts import parse
from bettersynth.demo.world.vocab import BASE_VOCAB
from bettersynth.models.bagel.autoencoder import AutoEncoder
from bettersynth.models.bagel.config import LlmConfig
from bettersynth.models.bagel.convert import load_checkpoint
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage
from bettersynth.train.unified_dataset import UnifiedGenerationDataset


def test_the_network_computes_the_components() -> None:
    images = autoencoder.take(24, BASE_VOCAB, 1)
    parts = encoder.fit(list(images))
    model = AutoEncoder(encoder.SIZES)
    encoder.write_encoder(model, parts)
    with torch.no_grad():
        mean, log_variance = model.moments(images[:4])
    squares = encoder.gather(encoder.gather(images[:4]))
    coded = torch.einsum("oc,bchw->bohw", parts.first, squares) + parts.first_offset[:, None, None]
    wanted = torch.einsum("oc,bchw->bohw", parts.second, encoder.gather(coded)) + parts.second_offset[:, None, None]
    assert (mean - wanted).abs().max() < 5e-3 < 0.2 < wanted.std()
    assert torch.allclose(log_variance, torch.full_like(log_variance, -7.0), atol=1e-3)


def test_the_shipped_autoencoder_gives_pictures_back() -> None:
    model = autoencoder.load_autoencoder()
    images = autoencoder.take(4, BASE_VOCAB, 7)
    with torch.no_grad():
        latents = model.encode(images)
        again = model.decode(latents).clamp(-1, 1)
    assert 0.5 < latents.std() < 2.0
    assert (again - images).abs().mean() * 127.5 < 30  # grey levels; the photometric noise alone is 5
    fresh = autoencoder.build()
    with torch.no_grad():
        assert torch.allclose(fresh.encode(images), latents, atol=0.05)


def test_training_of_the_decoder_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "FIT_PICTURES", 64)
    monkeypatch.setattr(autoencoder, "_POOL", 8)
    monkeypatch.setattr(autoencoder, "BATCH", 2)
    assert autoencoder.train(tmp_path / "whole", steps=4)["step"] == 4
    state = tmp_path / "cut" / autoencoder.STATE_FILE
    assert autoencoder.train(tmp_path / "cut", steps=4, max_seconds=-1.0)["step"] == 0 and state.is_file()
    assert autoencoder.train(tmp_path / "cut", steps=4)["step"] == 4
    for name in (autoencoder.WEIGHTS_FILE, autoencoder.CONFIG_FILE):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_missing_autoencoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vae_config\.json"):
        autoencoder.load_autoencoder(tmp_path)


def test_records_are_the_same_again_and_show_no_held_out_combination(tmp_path: Path) -> None:
    for name in ("a", "b"):
        kinds = write_records(tmp_path / name, count=60, seed=3)
        assert set(kinds) <= set(MIX) and sum(kinds.values()) == 60
    assert (tmp_path / "a" / "train.jsonl").read_bytes() == (tmp_path / "b" / "train.jsonl").read_bytes()
    text = (tmp_path / "a" / "train.jsonl").read_text()
    for line in text.splitlines():
        record = json.loads(line)
        for said in [
            record.get("text_prompt", ""),
            *(turn.get("content", "") for turn in record.get("conversations", ())),
        ]:
            assert all((group.colour, group.kind) in BASE_VOCAB.combos for group in parse(said).groups)
    assert '"text_prompt"' in text and '"assistant", "type": "text"' in text


def test_the_preset_trains_both_losses_on_the_demo_world(tmp_path: Path) -> None:
    write_records(tmp_path, count=48, seed=1)
    config = write_start(
        tmp_path / "start",
        llm=LlmConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
        ),
    )
    assert config.latent_dim == 64 and config.latent_stride_px == 16 and config.vit.table_side == 6
    data = UnifiedGenerationDataset(tmp_path / "train.jsonl", tmp_path / "start")
    assert len(data) == 48 and not data.rejected
    assert {picture.size for example in data for picture in example.images} == {(96, 96)}
    places = {"data": tmp_path / "train.jsonl", "init_from": tmp_path / "start", "lr": 5e-3, "samples_seen": 480}
    stage = stage_settings(load_preset("bagel_demo"), 2, {**places, "logging_steps": 1})
    run_stage(stage, out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    for key, share in (("text_loss", 0.8), ("image_loss", 0.97)):
        values = [line[key] for line in lines if key in line]
        assert sum(values[-5:]) < share * sum(values[:5]), (key, values)
    model = load_checkpoint(tmp_path / "run", dtype=torch.float32)
    assert model.autoencoder.config.scale_factor == config.vae.scale_factor
