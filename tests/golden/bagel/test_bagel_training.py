"""The training forward and backward of one packed batch."""

from __future__ import annotations

import pytest
import torch


def _losses(model, batch, shift):
    joint = model.losses(batch, shift=shift)
    joint.total().backward()
    return joint


def _norms(model):
    return {n: 0.0 if p.grad is None else p.grad.norm().item() for n, p in model.named_parameters()}


def test_forward(golden, model, batch, assert_close):
    out, meta = golden.tensors("train_out"), golden.json("train_meta.json")
    embeds = model.embed(batch, model.add_noise(batch, meta["timestep_shift"]))
    assert_close(embeds, out["input_embeddings"])
    assert_close(model.hidden_states(batch, embeds), out["last_hidden_state"])


@pytest.mark.parametrize("attention", ["sdpa", "flex"])
def test_losses(golden, model, batch, assert_close, monkeypatch, attention):
    monkeypatch.setattr(model, "attention", attention)
    out, meta = golden.tensors("train_out"), golden.json("train_meta.json")
    with torch.no_grad():
        joint = model.losses(batch, shift=meta["timestep_shift"])
    assert_close(joint.ce, out["ce_per_token"])
    assert_close(joint.mse, out["mse_elementwise"], atol=1e-3)
    assert_close(joint.mse_per_token, out["mse_per_token"], atol=1e-3)
    assert_close(joint.mean_ce(), out["loss_ce"], atol=1e-5, rtol=0)
    assert_close(joint.mean_ce(is_reweighted=True), out["loss_ce_reweighted"], atol=1e-5, rtol=0)
    assert_close(joint.mean_mse(), out["loss_mse"], atol=1e-5, rtol=0)
    total = joint.total(meta["ce_weight"], meta["mse_weight"])
    assert_close(total, out["loss_total"], atol=1e-5, rtol=0)


def test_losses_with_another_time_shift(golden, model, batch, assert_close):
    joint = model.losses(batch, shift=golden.json("train_meta.json")["alt_shift"])
    assert_close(joint.ce, golden.tensor("train_out", "alt_shift.ce_per_token"))
    assert_close(joint.mse_per_token, golden.tensor("train_out", "alt_shift.mse_per_token"), atol=1e-3)


@pytest.mark.parametrize("variant", ["sdpa", "flex", "checkpointed"])
def test_gradients(golden, trained, batch, assert_close, variant):
    meta = golden.json("train_meta.json")
    trained.attention = "flex" if variant == "flex" else "sdpa"  # on a CPU flex takes the dense path for gradients
    trained.decoder.is_checkpointing = variant == "checkpointed"
    _losses(trained, batch, meta["timestep_shift"])
    parameters = dict(trained.named_parameters())
    for name, wanted in golden.tensors("train_out").items():
        if name.startswith("grad."):
            assert_close(parameters[name.removeprefix("grad.")].grad, wanted, atol=1e-5, rtol=1e-3)
    got = _norms(trained)
    for name, norm in meta["grad_norms"].items():
        if norm is not None:
            assert got[name] == pytest.approx(norm, rel=1e-3, abs=1e-5), name
    squares = sum(norm**2 for norm in got.values())
    assert squares**0.5 == pytest.approx(meta["grad_global_norm"], rel=1e-3)


def test_gradients_with_frozen_understanding(golden, trained, batch, assert_close):
    meta = golden.json("train_meta.json")
    trained.is_und_frozen = True
    joint = _losses(trained, batch, meta["timestep_shift"])
    assert_close(joint.total(), golden.tensor("train_out", "freeze_und.loss_total"), atol=1e-5, rtol=0)
    got = _norms(trained)
    for name, norm in meta["freeze_und_grad_norms"].items():
        if norm is not None:
            assert got[name] == pytest.approx(norm, rel=1e-3, abs=1e-5), name


def test_noise_is_drawn_from_the_seed(model, batch):
    drawn = {name: tensor for name, tensor in batch.items() if name != "noise"}
    first, second = (model.losses({**drawn, "noise_seed": torch.tensor(seed)}).mean_mse() for seed in (1, 1))
    other = model.losses({**drawn, "noise_seed": torch.tensor(2)}).mean_mse()
    assert first == second != other
