"""Packed rows: the same loss and gradients as padded batches, and nothing passes between neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from bettersynth.core.sample import ImageRef
from bettersynth.models.family import BaseFolders, Example
from bettersynth.models.mgm.collate import collate, pack
from bettersynth.models.mgm.family import FAMILY
from bettersynth.models.mgm.model import MgmModel

ZOO = Path(__file__).parents[3] / "golden" / "data" / "mgm_a" / "model_zoo"


@pytest.fixture(scope="module")
def model() -> MgmModel:
    """The golden set's bases with a fresh connector, ready for both kinds of batch."""
    parts = (next((ZOO / "LLM" / "gemma").iterdir()), *sorted((ZOO / "OpenAI").iterdir()))
    spec = BaseFolders(llm=parts[0], vision_tower=parts[1], vision_tower_aux=parts[2], image_size_aux=128)
    loaded = FAMILY.load_base(spec, dtype=torch.float32, seed=1)
    FAMILY.trainable(loaded, 2)
    loaded.enable_packing()
    return loaded.train()


def examples(seed: int = 0, *, lengths: Sequence[int] = (9, 30, 4, 17)) -> list[Example]:
    """Sequences of several lengths; the first and the third have a picture."""
    rng = np.random.default_rng(seed)
    made = []
    for number, length in enumerate(lengths):
        ids = [2, *rng.integers(5, 60, length - 1).tolist()]
        labels = [-100] * (length // 2) + ids[length // 2 :]
        images: tuple[ImageRef, ...] = ()
        if number % 2 == 0:
            ids[1], labels[1], images = -200, -100, (ImageRef(f"{number}.png"),)
        made.append(Example(str(number), ids, labels, images, length))
    return made


def pixels(items: Sequence[Example]) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(5)
    return [[rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in item.images] for item in items]


def test_a_packed_batch_holds_no_padding_and_the_same_targets(model: MgmModel) -> None:
    items, tokens = examples(), model.config.tokens_per_image
    padded = collate(items, pixels(items), tokens_per_image=tokens)
    packed = pack(items, pixels(items), tokens_per_image=tokens)
    real = padded["attention_mask"]
    assert packed["segment_lengths"].tolist() == real.sum(1).tolist()
    for name in ("input_ids", "labels", "position_ids"):
        assert torch.equal(packed[name][0], padded[name][real])
    assert torch.equal(packed["target_ids"], padded["target_ids"])
    assert torch.equal(packed["images"], padded["images"])


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_loss_and_every_gradient_equal_the_padded_ones(model: MgmModel, is_checkpointed: bool) -> None:
    items, tokens = examples(), model.config.tokens_per_image
    if is_checkpointed:
        model.gradient_checkpointing_enable()
    found = []
    for join in (collate, pack):
        model.zero_grad()
        output = model(join(items, pixels(items), tokens_per_image=tokens))
        output.loss_sum.backward()
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((output.loss_sum.item(), int(output.num_targets), grads))
    (padded_loss, padded_targets, padded), (packed_loss, packed_targets, packed) = found
    assert packed_targets == padded_targets
    assert packed_loss == pytest.approx(padded_loss, rel=1e-6)
    assert packed.keys() == padded.keys()
    for name, gradient in padded.items():
        scale = gradient.abs().max().clamp(min=1e-3)
        assert (packed[name] - gradient).abs().max() <= 2e-5 * scale, name


def test_neighbours_do_not_see_each_other(model: MgmModel) -> None:
    first, second = examples(0), examples(1)
    tokens = model.config.tokens_per_image
    mixed = [first[0], second[1], first[2], second[3]]
    hidden = []
    with torch.no_grad():
        for items in (first, mixed):
            batch = pack(items, pixels(items), tokens_per_image=tokens)
            rows = model.packed_hidden_states(model.embed(batch), batch)[0]
            hidden.append(rows.split(batch["segment_lengths"].tolist()))
    same = [torch.equal(one, two) for one, two in zip(*hidden, strict=True)]
    assert same == [True, False, True, False]
