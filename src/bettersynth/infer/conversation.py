"""Talk with a checkpoint about a picture: several turns, words as they come, greedy or sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.sample import LLAVA_IMAGE
from bettersynth.core.seed import derive_seed
from bettersynth.infer.stops import cut_at, settled

Say = Callable[[str], None]
Turn = tuple[str, str]
"""(role, text) with role ``user`` or ``assistant``."""


class Conversation:
    """A checkpoint that answers conversations. Holds no state between calls.

    Args:
        folder: full checkpoint.
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        model_zoo: where towers lie that the checkpoint lacks.
    """

    def __init__(
        self, folder: Path, *, dtype: str = "auto", device: str = "auto", model_zoo: Path | None = None
    ) -> None:
        from bettersynth.models.mgm.auto_model import MgmGemmaForCausalLM
        from bettersynth.models.mgm.auto_processor import MgmGemmaProcessor

        self.processor = MgmGemmaProcessor.from_pretrained(folder, model_zoo=model_zoo)
        self.model = MgmGemmaForCausalLM.from_pretrained(folder, dtype=dtype, device_map=device, model_zoo=model_zoo)

    def answer(
        self,
        turns: Sequence[Turn],
        picture: Any = None,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
        say: Say | None = None,
    ) -> str:
        """The answer to the last turn, a user's.

        Args:
            turns: the conversation so far, users and assistants in turn.
            picture: what the first turn shows: a path, bytes or a PIL image; the same for the whole conversation.
            temperature: 0 takes the likeliest token, as the evaluation does.
            top_p: draw from the likeliest tokens whose chances reach this sum.
            stop: strings that end the answer; it holds what stands before the first of them.
            seed: of sampling; the same conversation and seed give the same answer.
            say: called with each new piece of text.

        Raises:
            DataError: a damaged picture, an empty turn, or a conversation longer than the model takes.
        """
        import torch
        from transformers import StoppingCriteriaList

        messages: list[dict[str, Any]] = [
            # What a user types is text; a tag in it would stand for a picture that is not there.
            {"role": role, "content": [{"type": "text", "text": text.replace(LLAVA_IMAGE, "image")}]}
            for role, text in turns
        ]
        if picture is not None:
            messages[0]["content"].insert(0, {"type": "image"})
        prompt = self.processor.apply_chat_template(messages)
        inputs = self.processor(text=prompt, images=[picture] if picture is not None else None)
        inputs = inputs.to(self.model.device)
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
        if temperature > 0:
            options |= {"temperature": temperature, "top_p": top_p}
            torch.manual_seed(derive_seed(seed, f"chat {len(turns)}"))
        begin = inputs["input_ids"].shape[1]

        def is_over(ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            texts = [str(self.processor.decode(row[begin:])) for row in ids]
            return torch.tensor([cut_at(text, stop) != text for text in texts], device=ids.device)

        if stop:
            options["stopping_criteria"] = StoppingCriteriaList([is_over])
        streamer = _Stream(self.processor.decode, say, stop) if say is not None else None
        ids = self.model.generate(**inputs, **options, streamer=streamer)
        return cut_at(str(self.processor.decode(ids[0, begin:])), stop)


class _Stream:
    """What ``generate`` hands its tokens to: says whole characters, never half of one, and nothing of a stop string."""

    def __init__(self, decode: Callable[[Sequence[int]], str], say: Say, stops: Sequence[str] = ()) -> None:
        self._decode, self._say, self._stops = decode, say, stops
        self._ids: list[int] = []
        self._said, self._is_prompt = "", True

    def put(self, value: Any) -> None:
        """The prompt first, then one token a call."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self._ids += [int(i) for i in value.flatten().tolist()]
        text = settled(cut_at(self._decode(self._ids), self._stops), self._stops)
        if text.startswith(self._said) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self._say(text[len(self._said) :])
            self._said = text

    def end(self) -> None:
        """Say what is left; all of it again where later tokens changed what earlier ones meant."""
        text = cut_at(self._decode(self._ids), self._stops)
        self._say(text[len(self._said) :] if text.startswith(self._said) else f"\n{text}")
