"""Files, autoencoder, vision encoder, connector, time embedding."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from bettersynth.models.bagel.convert import TABLES, load_checkpoint, save_checkpoint
from bettersynth.models.bagel.model import shift_time
from bettersynth.models.weights import read_json


def test_every_stored_tensor_has_a_place(golden, model, assert_close):
    stored = load_file(golden.path("ema.safetensors"))
    own = model.state_dict()
    assert set(own) == set(stored) | set(TABLES)
    for name, tensor in stored.items():
        if name in TABLES:
            assert_close(own[name], tensor, atol=1e-5)  # computed from the formula, not read
        else:
            assert torch.equal(own[name], tensor.to(own[name].dtype)), name


def test_a_saved_folder_holds_the_same(golden, model, tmp_path):
    save_checkpoint(model, tmp_path)
    model.tokenizer_folder = str(golden.folder)
    for name in ("ema.safetensors", "ae.safetensors"):
        written, stored = load_file(tmp_path / name), load_file(golden.path(name))
        assert set(written) >= set(stored)
        assert all(torch.equal(tensor, written[key]) for key, tensor in stored.items() if key not in TABLES)
    for name in ("llm_config.json", "vit_config.json"):
        assert golden.json(name).items() <= read_json(tmp_path / name).items()
    again = load_checkpoint(tmp_path, dtype=torch.float32)
    assert again.config.files() == model.config.files()


def test_a_pickle_of_the_state_dict_loads(golden, model, tmp_path):
    torch.save({"module." + name: tensor for name, tensor in model.state_dict().items()}, tmp_path / "trained_model.pt")
    again = load_checkpoint(golden.folder, dtype=torch.float32, weights=tmp_path / "trained_model.pt")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_autoencoder(golden, model, assert_close):
    wanted, vae = golden.tensors("vae"), model.autoencoder
    assert_close(torch.cat(vae.moments(wanted["image"]), dim=1), wanted["moments"], rtol=0)
    assert_close(vae.encode(wanted["image"]), wanted["latent_mean"], rtol=0)
    assert_close(vae.encode(wanted["image"], wanted["posterior_eps"]), wanted["latent_sampled"], rtol=0)
    assert_close(vae.decode(wanted["latent_mean"]), wanted["decoded_from_mean"], rtol=0)
    assert_close(vae.decode(wanted["random_latent"]), wanted["decoded_from_random"], rtol=0)


def test_latents_of_the_padded_batch(golden, model, batch, assert_close):
    pixels = {name: tensor for name, tensor in batch.items() if name != "padded_latent"}
    assert_close(model.latents_of(pixels), batch["padded_latent"], rtol=0)


def test_vision_encoder_and_connector(golden, model, batch, assert_close):
    lengths = batch["vit_token_seqlens"].tolist()
    features = model.vit_model["vision_model"](batch["packed_vit_tokens"], batch["packed_vit_position_ids"], lengths)
    assert_close(features, golden.tensor("train_out", "vit_output"))
    assert_close(model.connector(features), golden.tensor("train_out", "connector_output"))


def test_time_embedding(golden, model, batch, assert_close):
    shift = golden.json("train_meta.json")["timestep_shift"]
    times = shift_time(torch.sigmoid(batch["packed_timesteps"]), shift)
    assert_close(model.time_embedder(times), golden.tensor("train_out", "time_embedding"))
