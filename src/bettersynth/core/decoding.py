"""How an answer is drawn from a model: a plain record, so that configuration and models share it."""

from __future__ import annotations

from dataclasses import dataclass

from bettersynth.core.fingerprint import digest_json


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
