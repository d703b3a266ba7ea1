"""Join examples into one batch: put image places into the sequences, pad, and find the targets. No device is touched.

Shape letters: B sequences, L positions, I pictures, N tokens per picture, T targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from bettersynth.models.family import IGNORE_LABEL, IMAGE_MARKER, Batch, Example, Pixels


class Spliced(NamedTuple):
    """One sequence with every image marker replaced by its N places."""

    ids: np.ndarray
    labels: np.ndarray
    is_image: np.ndarray


def splice(input_ids: Sequence[int], labels: Sequence[int], tokens_per_image: int, pad_id: int = 0) -> Spliced:
    """Expand image markers: ids there become ``pad_id`` (overwritten later by image tokens), labels become -100."""
    ids = np.asarray(input_ids, dtype=np.int64)
    is_marker = ids == IMAGE_MARKER
    repeats = np.where(is_marker, tokens_per_image, 1)
    is_image = np.repeat(is_marker, repeats)
    expanded = np.where(is_image, pad_id, np.repeat(ids, repeats))
    targets = np.where(is_image, IGNORE_LABEL, np.repeat(np.asarray(labels, dtype=np.int64), repeats))
    return Spliced(expanded, targets, is_image)


def collate(
    examples: Sequence[Example],
    pixels: Sequence[Sequence[Pixels]],
    *,
    tokens_per_image: int,
    pad_id: int = 0,
    is_left_padded: bool = False,
    cut_to: int | None = None,
) -> Batch:
    """One batch.

    Args:
        examples: what to join.
        pixels: per example one uint8 (H, W, 3) array for each of its markers.
        tokens_per_image: N.
        pad_id: id put at padding and under image tokens.
        is_left_padded: padding in front, for generation.
        cut_to: cut expanded sequences to this length, as the original does without a word. Only for comparison with it:
            here, what is too long is rejected before it gets this far.

    Returns:
        ``input_ids``, ``labels``, ``position_ids`` (B, L) int64; ``attention_mask`` (B, L) bool;
        ``images`` (I, H, W, 3) uint8; ``image_positions`` (I * N,) flat places of the image tokens;
        ``target_positions``, ``target_ids`` (T,): flat positions whose next token is learnt, and that token.
    """
    rows = [splice(example.input_ids, example.labels, tokens_per_image, pad_id) for example in examples]
    if cut_to is not None:
        rows = [Spliced(*(part[:cut_to] for part in row)) for row in rows]
    length = max(len(row.ids) for row in rows)
    shape = (len(rows), length)
    ids, labels = np.full(shape, pad_id, dtype=np.int64), np.full(shape, IGNORE_LABEL, dtype=np.int64)
    mask, is_image = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for index, row in enumerate(rows):
        size = len(row.ids)
        place = slice(length - size, length) if is_left_padded else slice(0, size)
        ids[index, place], labels[index, place] = row.ids, row.labels
        mask[index, place], is_image[index, place] = True, row.is_image
    next_labels = np.full(shape, IGNORE_LABEL, dtype=np.int64)
    next_labels[:, :-1] = labels[:, 1:]
    targets = np.flatnonzero(next_labels != IGNORE_LABEL)
    pictures = [picture for group in pixels for picture in group]
    images = np.stack(pictures) if pictures else np.zeros((0, 1, 1, 3), dtype=np.uint8)
    arrays = {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "position_ids": np.maximum(mask.cumsum(1) - 1, 0),
        "images": images,
        "image_positions": np.flatnonzero(is_image),
        "target_positions": targets,
        "target_ids": next_labels.ravel()[targets],
    }
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def pack(
    examples: Sequence[Example], pixels: Sequence[Sequence[Pixels]], *, tokens_per_image: int, pad_id: int = 0
) -> Batch:
    """The same as :func:`collate` in one row without padding: sequences one after the other, positions from 0 in each.

    Returns:
        The tensors of :func:`collate` with B = 1, and ``segment_lengths`` (number of sequences,) int64.
    """
    rows = [splice(example.input_ids, example.labels, tokens_per_image, pad_id) for example in examples]
    ids, labels, is_image = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    lengths = np.array([len(row.ids) for row in rows], dtype=np.int64)
    next_labels = np.full(len(ids), IGNORE_LABEL, dtype=np.int64)
    next_labels[:-1] = labels[1:]
    next_labels[lengths.cumsum() - 1] = IGNORE_LABEL  # the last token of a sequence does not predict its neighbour
    targets = np.flatnonzero(next_labels != IGNORE_LABEL)
    pictures = [picture for group in pixels for picture in group]
    arrays = {
        "input_ids": ids[None],
        "labels": labels[None],
        "attention_mask": np.ones((1, len(ids)), dtype=bool),
        "position_ids": np.concatenate([np.arange(length) for length in lengths])[None],
        "images": np.stack(pictures) if pictures else np.zeros((0, 1, 1, 3), dtype=np.uint8),
        "image_positions": np.flatnonzero(is_image),
        "target_positions": targets,
        "target_ids": next_labels[targets],
        "segment_lengths": lengths,
    }
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
