"""The tiny autoencoder's decoder learns from what the tiny BAGEL itself draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bettersynth.demo.bagel import autoencoder, retouch
from bettersynth.demo.bagel.start import write_start
from bettersynth.models.bagel.config import LlmConfig
from bettersynth.models.bagel.convert import load_checkpoint
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.tokens import BagelTokenizer

TINY = LlmConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
)


@pytest.fixture
def model(tmp_path: Path) -> BagelModel:
    write_start(tmp_path, llm=TINY)
    return load_checkpoint(tmp_path, dtype=torch.float32)


def test_pictures_are_drawn_to_the_end_from_the_same_noise(
    model: BagelModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retouch, "_TOGETHER", 2)
    monkeypatch.setattr(retouch, "_GROUPS", 2)
    monkeypatch.setattr(retouch, "_UNTOUCHED", 1)
    tokenizer = BagelTokenizer(tmp_path)
    images, latents = retouch.redrawn(model, tokenizer, 0, 4)
    again = retouch.redrawn(model, tokenizer, 0, 4)
    assert torch.equal(images, again[0]) and torch.equal(latents, again[1])
    assert not torch.equal(images, retouch.redrawn(model, tokenizer, 0, 5)[0])
    with torch.no_grad():
        wanted = model.autoencoder.encode(images)
    assert torch.allclose(latents[:2], wanted[:2], atol=1e-5)
    assert images.shape == (4, 3, 96, 96) and (latents[2:] - wanted[2:]).abs().mean() > 0.05


def test_the_decoder_is_retouched_and_the_latents_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retouch, "_TOGETHER", 2)
    monkeypatch.setattr(retouch, "_GROUPS", 2)
    monkeypatch.setattr(retouch, "_UNTOUCHED", 1)
    monkeypatch.setattr(autoencoder, "BATCH", 2)
    monkeypatch.setattr(retouch, "evaluate", lambda folder: {})
    folder, out = tmp_path / "model", tmp_path / "new"
    write_start(folder, llm=TINY)
    (folder / "ae.safetensors").unlink()  # as the package ships it
    retouch.main([str(folder), "--start", str(autoencoder.WEIGHTS), "--out", str(out), "--steps", "2"])
    old, new = autoencoder.load_autoencoder(), autoencoder.load_autoencoder(out)
    assert old.config == new.config
    assert all(torch.equal(a, b) for a, b in zip(old.encoder.parameters(), new.encoder.parameters(), strict=True))
    assert not torch.equal(old.decoder.conv_out.weight, new.decoder.conv_out.weight)
