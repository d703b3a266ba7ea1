"""One request on its way: what was planned, what was decided and made so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from bettersynth.infer.stops import cut_at
from bettersynth.infer.unified_reading import Memory
from bettersynth.infer.unified_types import Decision, How, Output, UnifiedRequest

THOUGHT_END = "</think>"


@dataclass
class Turn:
    """One request on its way."""

    request: UnifiedRequest
    memory: Memory
    generator: torch.Generator
    plan: list[Decision]
    how: How
    think_ids: tuple[int, ...] | None
    outputs: list[Output] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    next: Decision | None = None
    is_done: bool = False
    num_read: int = 0

    @property
    def is_edit(self) -> bool:
        """Whether the conversation held a picture when the turn began."""
        return sum(part.is_image for part in self.memory.parts) > self.num_images

    @property
    def num_images(self) -> int:
        """Pictures of the answer so far."""
        return sum(output.kind == "image" for output in self.outputs)

    @property
    def most(self) -> int:
        """Most outputs: explicit control says itself how many."""
        return self.request.max_outputs if isinstance(self.request.output, str) else len(self.request.output) + 1

    @property
    def asks_model(self) -> bool:
        """In ``auto`` the model is asked at the start; it goes on being asked if it has an opinion then."""
        if not self.memory.parts:
            return False
        return self.how == "learned" or (self.request.output == "auto" and not self.decisions)

    def up_to_stop(self, text: str) -> str:
        """The text up to a stop string, which is not looked for in a thought."""
        return cut_at(text, self.request.stop, behind=THOUGHT_END if self.think_ids is not None else "")
