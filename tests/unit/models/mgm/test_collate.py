from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.models.family import Example
from bettersynth.models.mgm.collate import collate, splice

_IDS = st.lists(st.one_of(st.just(-200), st.integers(5, 99)), min_size=1, max_size=12)


@given(ids=_IDS, tokens=st.integers(1, 5))
def test_splice_equals_a_plain_loop(ids, tokens):
    labels = [token if index % 2 else -100 for index, token in enumerate(ids)]
    expected = [
        entry
        for token, label in zip(ids, labels, strict=True)
        for entry in ([(0, -100, True)] * tokens if token == -200 else [(token, label, False)])
    ]
    spliced = splice(ids, labels, tokens)
    assert list(zip(*(part.tolist() for part in spliced), strict=True)) == expected


@given(rows=st.lists(_IDS, min_size=1, max_size=4), is_left=st.booleans())
def test_targets_are_the_next_tokens(rows, is_left):
    examples = [Example(str(i), ids, [-100, *ids[1:]], (), 0) for i, ids in enumerate(rows)]
    batch = collate(examples, [], tokens_per_image=2, is_left_padded=is_left)
    flat, targets = batch["labels"].flatten(), batch["target_positions"]
    assert torch.equal(flat[targets + 1], batch["target_ids"])
    assert len(targets) == sum(token != -200 for ids in rows for token in ids[1:])
    assert batch["image_positions"].numel() == 2 * sum(ids.count(-200) for ids in rows)
    for row, ids in enumerate(rows):
        size = len(ids) + ids.count(-200)
        mask = batch["attention_mask"][row]
        assert mask.sum() == size and bool(mask[-1] if is_left else mask[0])
        assert batch["position_ids"][row][mask].tolist() == list(range(size))


def test_pictures_keep_their_order_and_type():
    pictures = [np.full((4, 4, 3), value, dtype=np.uint8) for value in range(3)]
    examples = [Example("a", [2, -200], [-100] * 2, (), 0), Example("b", [2, -200, -200], [-100] * 3, (), 0)]
    batch = collate(examples, [pictures[:1], pictures[1:]], tokens_per_image=1)
    assert batch["images"].dtype == torch.uint8
    assert batch["images"][:, 0, 0, 0].tolist() == [0, 1, 2]
