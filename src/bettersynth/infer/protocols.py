"""What operators and evaluation may ask of a model. Backends implement these; callers import nothing heavier than this.

A protocol is a plain class with no base to inherit: anything with the right attributes and methods fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from bettersynth.core.fingerprint import digest_json
from bettersynth.core.sample import ImageRef

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is drawn from a model; greedy by default.

    Args:
        max_new_tokens: the answer is cut after this many tokens (``ChatResponse.finish`` is then ``length``).
        do_sample: draw tokens at random from ``seed``; greedy otherwise.
        num_beams: beams kept; 1 is plain greedy or sampling.
        temperature: divides the logits when sampling.
        top_p: smallest probability mass to sample from.
        seed: seed of the draws; unused when greedy.
    """

    max_new_tokens: int
    do_sample: bool = False
    num_beams: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def digest(self) -> str:
        """Digest of the settings; part of every prediction's provenance.

        >>> Decoding(16).digest() == Decoding(16, num_beams=1).digest() != Decoding(17).digest()
        True
        """
        return digest_json(self)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One user turn, perhaps with a picture.

    Args:
        key: unique within the caller's run; comes back in the response.
        prompt: the user's text alone, bytes as asked. The model puts the image marker (``<image>\\n``, MGM) before it
            and applies its own conversation template; text that looks like an image marker stays text.
        image: a path (absolute, or relative to the working directory), an encoded file's bytes, or None.
    """

    key: str
    prompt: str
    image: ImageRef | bytes | None = None


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """An answer.

    Args:
        key: the request's key.
        text: decoded without special tokens, stripped.
        token_ids: what the model emitted, including the stop token when there was one.
        finish: ``stop`` when the model ended its answer itself, ``length`` when it was cut.
    """

    key: str
    text: str
    token_ids: tuple[int, ...] = ()
    finish: Finish = "stop"


@runtime_checkable
class ChatModel(Protocol):
    """Answers questions about pictures.

    ``digest`` names the weights and the processing (a checkpoint artifact's digest): equal digests give equal answers.
    ``generate`` answers a batch in the order of the requests. The caller sorts by length and keeps questions on the
    same picture side by side, so that a backend can encode each picture once. The answer to a request must not
    depend on which other requests share its batch.
    """

    digest: str

    def generate(self, requests: Sequence[ChatRequest], decoding: Decoding) -> list[ChatResponse]:
        """Answer every request, in order."""
        ...
