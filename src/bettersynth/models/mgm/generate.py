"""Greedy generation for MGM: left-padded batches, key-value cache, one forward pass per new token.

Sequences that begin alike (a picture and the question, before options in another order) may share what the language
model makes of their beginning.

Shape letters: B sequences, L positions, D language width, G beginnings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import DynamicCache

from bettersynth.models.family import Batch
from bettersynth.models.mgm.model import MgmModel


@dataclass
class Generated:
    """What one sequence became: new ids (the end token included), and whether the model ended it itself."""

    token_ids: list[int] = field(default_factory=list)
    is_ended: bool = False
    step_logits: list[torch.Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Prefix:
    """Beginnings that several sequences share.

    Attributes:
        batch: G left-padded beginnings, with their pictures' places.
        image_tokens: (I, N, D) of the pictures in them.
        owner: (B,) the beginning of each sequence.
    """

    batch: Batch
    image_tokens: torch.Tensor | None
    owner: torch.Tensor


@dataclass
class _Begun:
    """A batch after its first pass: (B, D) states of the last position, and what the next pass needs."""

    hidden: torch.Tensor
    cache: DynamicCache
    mask: torch.Tensor
    positions: torch.Tensor


def _begin(model: MgmModel, batch: Batch, image_tokens: torch.Tensor | None, prefix: Prefix | None) -> _Begun:
    """Read a left-padded batch; after a shared beginning, only what follows it."""
    cache = DynamicCache(config=model.model.config)
    mask, positions = batch["attention_mask"].long(), batch["position_ids"]
    if prefix is not None:
        before = prefix.batch["attention_mask"].long()
        model.model(
            inputs_embeds=model.scale(model.embed(prefix.batch, prefix.image_tokens)),
            attention_mask=before,
            position_ids=prefix.batch["position_ids"],
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_select_indices(prefix.owner)
        mask = torch.cat([before[prefix.owner], mask], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, before.shape[1] :]
    output = model.model(
        inputs_embeds=model.scale(model.embed(batch, image_tokens)),
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return _Begun(output.last_hidden_state[:, -1], cache, mask, positions)


@torch.inference_mode()
def next_logits(
    model: MgmModel, batch: Batch, *, image_tokens: torch.Tensor | None = None, prefix: Prefix | None = None
) -> torch.Tensor:
    """(B, vocabulary) logits of the token after each sequence of a left-padded batch; arguments as below."""
    return model.logits(_begin(model, batch, image_tokens, prefix).hidden)


@torch.inference_mode()
def generate_greedy(
    model: MgmModel,
    batch: Batch,
    *,
    max_new_tokens: int,
    end_ids: frozenset[int],
    image_tokens: torch.Tensor | None = None,
    keeps_logits: bool = False,
    prefix: Prefix | None = None,
) -> list[Generated]:
    """Continue every sequence of a left-padded batch with its most likely tokens.

    Args:
        model: in evaluation mode.
        batch: see :func:`bettersynth.models.mgm.collate.collate`, padded on the left.
        max_new_tokens: longest answer.
        end_ids: tokens that end an answer.
        image_tokens: (I, N, D) already encoded pictures; by default those of the batch are encoded.
        keeps_logits: keep the logits of every step (for tests).
        prefix: beginnings, if the batch holds only what follows them.
    """
    results = [Generated() for _ in range(len(batch["input_ids"]))]
    alive = torch.arange(len(results))
    begun = _begin(model, batch, image_tokens, prefix)
    hidden, cache, mask, positions = begun.hidden, begun.cache, begun.mask, begun.positions
    for step in range(max_new_tokens):
        logits = model.logits(hidden)
        tokens = logits.argmax(-1)
        still = []
        for row, (index, token) in enumerate(zip(alive.tolist(), tokens.tolist(), strict=True)):
            result = results[index]
            result.token_ids.append(token)
            if keeps_logits:
                result.step_logits.append(logits[row].cpu())
            result.is_ended = token in end_ids
            if not result.is_ended:
                still.append(row)
        if not still or step + 1 == max_new_tokens:
            break
        if len(still) < len(alive):
            kept = torch.tensor(still, device=tokens.device)
            cache.batch_select_indices(kept)
            alive, tokens, mask, positions = alive[kept.cpu()], tokens[kept], mask[kept], positions[kept]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
        output = model.model(
            inputs_embeds=model.scale(torch.nn.functional.embedding(tokens.unsqueeze(1), model.embedding)),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        hidden = output.last_hidden_state[:, -1]
    return results
