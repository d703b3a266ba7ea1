"""Gradients, frozen parts, and six optimiser steps of both stages."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from bettersynth.models.family import load_family

INVISIBLE = 1e-6
"""A golden gradient below this is rounding noise: softmax hides the two key biases from the loss (ours are 0)."""


def _backward(golden, model, batch, stage):
    """Run one batch backwards; returns the trainable parameters and the mean loss."""
    parameters = load_family("mgm").trainable(model, stage)
    which = golden.has_image()
    tokens = model.encode_views(golden["images"][which].unsqueeze(1), golden["images_aux"][which]).tokens
    output = model.loss(batch, tokens)
    loss = output.loss_sum / output.num_targets
    loss.backward()
    return dict(parameters), loss.item()


def test_gradients(golden, trained, batch):
    parameters, _ = _backward(golden, trained, batch, stage=2)
    wanted = load_file(golden.path("grads.safetensors"))
    assert wanted
    for name, gradient in wanted.items():
        got, largest = parameters[name].grad, gradient.abs().max()
        if largest < INVISIBLE:
            assert got.abs().max() < INVISIBLE, name
        else:
            assert (got - gradient).abs().max() <= 1e-3 * largest, name


def test_all_gradient_norms(golden, trained, batch):
    parameters, _ = _backward(golden, trained, batch, stage=2)
    wanted = golden.json("info.json")["grad_norm_all"]
    assert set(wanted) == set(parameters)
    for name, norm in wanted.items():
        assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=1e-3, abs=INVISIBLE), name


def test_what_each_stage_trains(golden, trained):
    wanted = golden.json("parameters.json")
    family = load_family("mgm")
    assert {name for name, _ in family.trainable(trained, 1)} == set(wanted["stage1_trainable"])
    assert {name for name, _ in family.trainable(trained, 2)} == set(wanted["stage2_trainable"])
    frozen = {name for name, parameter in trained.named_parameters() if not parameter.requires_grad}
    assert frozen == set(wanted["stage2_frozen"])


@pytest.mark.parametrize("position", [0, 1])
def test_trajectory(golden, trained, batch, position):
    run = golden.json("trajectory.json")[position]
    named = load_family("mgm").trainable(trained, run["stage"])
    parameters = [parameter for _, parameter in named]
    optimiser = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    which = golden.has_image()
    towers = trained.tower_maps(golden["images"][which].unsqueeze(1), golden["images_aux"][which])
    for record in run["records"]:
        output = trained.loss(batch, trained.connect(*towers).tokens)
        loss = output.loss_sum / output.num_targets
        assert loss.item() == pytest.approx(record["loss"], rel=1e-3), record["step"]
        if "lr" not in record:
            break
        optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        assert norm.item() == pytest.approx(record["grad_norm_before_clip"], rel=1e-3), record["step"]
        optimiser.param_groups[0]["lr"] = record["lr"]
        optimiser.step()
