"""Greedy generation for MGM: left-padded batches, key-value cache, one forward pass per new token.

Shape letters: B sequences, L positions, D language width.
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


@torch.inference_mode()
def next_logits(model: MgmModel, batch: Batch, *, image_tokens: torch.Tensor | None = None) -> torch.Tensor:
    """(B, vocabulary) logits of the token after each sequence of a left-padded batch; arguments as below."""
    output = model.model(
        inputs_embeds=model.scale(model.embed(batch, image_tokens)),
        attention_mask=batch["attention_mask"].long(),
        position_ids=batch["position_ids"],
        use_cache=False,
    )
    return model.logits(output.last_hidden_state[:, -1])


@torch.inference_mode()
def generate_greedy(
    model: MgmModel,
    batch: Batch,
    *,
    max_new_tokens: int,
    end_ids: frozenset[int],
    image_tokens: torch.Tensor | None = None,
    keeps_logits: bool = False,
) -> list[Generated]:
    """Continue every sequence of a left-padded batch with its most likely tokens.

    Args:
        model: in evaluation mode.
        batch: see :func:`bettersynth.models.mgm.collate.collate`, padded on the left.
        max_new_tokens: longest answer.
        end_ids: tokens that end an answer.
        image_tokens: (I, N, D) already encoded pictures; by default those of the batch are encoded.
        keeps_logits: keep the logits of every step (for tests).
    """
    results = [Generated() for _ in range(len(batch["input_ids"]))]
    alive = torch.arange(len(results))
    mask, positions = batch["attention_mask"].long(), batch["position_ids"]
    embeds = model.scale(model.embed(batch, image_tokens))
    cache = DynamicCache(config=model.model.config)
    for step in range(max_new_tokens):
        output = model.model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        logits = model.logits(output.last_hidden_state[:, -1])
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
        embeds = model.scale(torch.nn.functional.embedding(tokens.unsqueeze(1), model.embedding))
    return results
