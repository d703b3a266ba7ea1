"""Text out of contexts: one forward per new token for all of them, greedy or drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch

from bettersynth.models.bagel.context import Context, forward, token_blocks
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.layers.mot import Rows


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 is greedy, whatever ``top_p`` is.
        top_p: tokens are drawn from the likeliest ones whose chances reach this sum (Holtzman et al. 2020).
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def choose(self, logits_V: torch.Tensor, generator: torch.Generator | None) -> int:
        """The next token."""
        if self.temperature <= 0:
            return int(logits_V.argmax())
        chances = torch.softmax(logits_V / self.temperature, dim=-1).cpu()
        if self.top_p < 1:
            ordered, places = chances.sort(descending=True, stable=True)
            chances[places[ordered.cumsum(-1) - ordered >= self.top_p]] = 0.0  # before the likeliest stands nothing
        return int(torch.multinomial(chances, 1, generator=generator))


GREEDY = Sampling()


@dataclass
class Answer:
    """New ids without markers, whether the model ended by itself and with which token, and the logits if kept."""

    ids: list[int] = field(default_factory=list)
    is_ended: bool = False
    end: int | None = None
    logits: list[torch.Tensor] = field(default_factory=list)


@torch.no_grad()
def generate_text(
    model: BagelModel,
    contexts: Sequence[Context],
    *,
    max_new_tokens: int,
    end_id: int | Collection[int] | None = None,
    sampling: Sampling = GREEDY,
    generators: Sequence[torch.Generator] | None = None,
    is_over: Callable[[int, Sequence[int]], bool] | None = None,
    keeps_logits: bool = False,
) -> list[Answer]:
    """Continue every context with a text. The contexts are left as they were; add the answer with ``read_text``.

    Args:
        model: in evaluation mode.
        contexts: what was read, no object twice; each ends on its own, however long the others go on.
        max_new_tokens: longest answer.
        end_id: token (or tokens) that ends an answer, by default the end of a text; it is not in the answer.
        sampling: how tokens are chosen.
        generators: one per context, for drawing.
        is_over: asked with the number of a context and its new ids after each of them; True ends that answer.
        keeps_logits: keep the logits (V,) of every step (for tests).
    """
    special = model.config.special
    end_id = special.eos if end_id is None else end_id
    ends = {end_id} if isinstance(end_id, int) else set(end_id)
    answers = [Answer() for _ in contexts]
    before = [(context.length, context.next_rope, context.history) for context in contexts]
    alive, fed = list(range(len(contexts))), [special.bos] * len(contexts)
    for _ in range(max_new_tokens):
        rows, _ = forward(model, token_blocks(model, [contexts[i] for i in alive], [fed[i] for i in alive]))
        hidden = model.decoder.final_norms(Rows(rows.und, rows.gen)).und
        logits = model.language_model.lm_head(hidden).float()
        still = []
        for row, i in enumerate(alive):
            contexts[i].advance(1, 1, fed[i])
            token = sampling.choose(logits[row], generators[i] if generators else None)
            if keeps_logits:
                answers[i].logits.append(logits[row])
            answers[i].is_ended = token in ends
            if answers[i].is_ended:
                answers[i].end = token
            else:
                answers[i].ids.append(token)
                fed[i] = token
                if is_over is None or not is_over(i, answers[i].ids):
                    still.append(i)
        alive = still
        if not alive:
            break
    for context, (length, rope, history) in zip(contexts, before, strict=True):
        context.length, context.next_rope, context.history = length, rope, history
    return answers


@torch.no_grad()
def logits_after(model: BagelModel, contexts: Sequence[Context], last: Sequence[int]) -> list[torch.Tensor]:
    """Logits (V,) behind what every context has read, by one forward; the contexts are left as they were.

    Args:
        model: in evaluation mode.
        contexts: no object twice, none empty.
        last: the token that each context read last: the closing marker of a text or of a picture.
    """
    for context in contexts:
        context.length, context.next_rope = context.length - 1, context.next_rope - 1
    try:
        rows, _ = forward(model, token_blocks(model, contexts, last))
    finally:
        for context in contexts:
            context.length, context.next_rope = context.length + 1, context.next_rope + 1
    hidden = model.decoder.final_norms(Rows(rows.und, rows.gen)).und
    return list(model.language_model.lm_head(hidden).float())
