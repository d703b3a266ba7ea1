"""What operators and evaluation may ask of a model. Backends implement these; callers import nothing heavier than this.

A protocol is a plain class with no base to inherit: anything with the right attributes and methods fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from bettersynth.core.decoding import Decoding as Decoding
from bettersynth.core.sample import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

FloatArray = npt.NDArray[np.floating[Any]]
Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One user turn, perhaps with a picture.

    Args:
        key: unique within the caller's run; comes back in the response.
        prompt: the user's text alone, bytes as asked. The model puts the image marker (``<image>\\n``, MGM) before it
            and applies its own conversation template; text that looks like an image marker stays text.
        image: a path (absolute, or relative to the working directory), an encoded file's bytes, or None.
        choices: when given, the answer is the likeliest of these as the first token, and nothing else is generated.
    """

    key: str
    prompt: str
    image: ImageRef | bytes | None = None
    choices: tuple[str, ...] = ()


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


@dataclass(frozen=True, slots=True)
class TextNll:
    """How surprising a text is to a captioner that sees the picture; natural-log units.

    Args:
        mean: mean negative log-likelihood per token; 0 for a text without tokens.
        tokens: NLL of each token.
        spans: (start, stop) of each token in the text, in characters; (0, 0) for tokens that stand for no text.
    """

    mean: float
    tokens: tuple[float, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


@runtime_checkable
class ImageTextScorer(Protocol):
    """Says how well texts fit pictures (CLIP and its like). ``digest`` names weights and processing."""

    digest: str

    def score(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """[N] fit of each pair: logits per text / 100, which is the cosine for a CLIP with the usual scale of 100."""
        ...

    def embed_images(self, images: Sequence[Image]) -> FloatArray:
        """[N, D] unit vectors."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """[N, D] unit vectors in the same space."""
        ...


@runtime_checkable
class Captioner(Protocol):
    """Writes captions and judges given ones. Results for a pair do not depend on the other pairs of the call."""

    digest: str

    def caption(
        self, images: Sequence[Image], *, seeds: Sequence[int] | None = None, max_new_tokens: int = 64, prompt: str = ""
    ) -> list[str]:
        """One caption per picture, stripped; greedy, or sampled with one seed per picture."""
        ...

    def nll(self, images: Sequence[Image], texts: Sequence[str]) -> list[TextNll]:
        """How surprising each text is given its picture."""
        ...


@runtime_checkable
class ImageClassifier(Protocol):
    """Numbers per picture: class logits, or one rating. ``labels`` names the columns (empty for a rating)."""

    digest: str
    labels: tuple[str, ...]

    def logits(self, images: Sequence[Image]) -> FloatArray:
        """[N, C] raw outputs."""
        ...


@runtime_checkable
class ImageTextMatcher(Protocol):
    """Says whether a text describes a picture (BLIP's matching head): a probability, not a similarity."""

    digest: str

    def match(self, images: Sequence[Image], texts: Sequence[str]) -> FloatArray:
        """[N] probability that each pair belongs together."""
        ...


@dataclass(frozen=True, slots=True)
class Box:
    """A place in a picture that a phrase names.

    Args:
        phrase: index of the phrase. score: 0 to 1.
        left, top, right, bottom: pixels.
    """

    phrase: int
    score: float
    left: float
    top: float
    right: float
    bottom: float


@runtime_checkable
class PhraseGrounder(Protocol):
    """Finds the things that phrases name (OWL-ViT)."""

    digest: str

    def ground(self, image: Image, phrases: Sequence[str], at_most: int) -> list[Box]:
        """The ``at_most`` best places of any of the phrases, best first; each place has its likeliest phrase."""
        ...


@dataclass(frozen=True, slots=True)
class FaceSearch:
    """How a cascade looks for faces; names and defaults of OpenCV's ``detectMultiScale``, as Data-Juicer uses it.

    Args:
        scale: how much the window grows from one round to the next.
        neighbours: overlapping finds that make a face.
        min_size, max_size: (width, height) of the smallest and largest face in pixels.
    """

    scale: float = 1.1
    neighbours: int = 3
    min_size: tuple[int, ...] | None = None
    max_size: tuple[int, ...] | None = None


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces."""

    digest: str

    def faces(
        self, images: Sequence[Image], search: FaceSearch = FaceSearch()
    ) -> list[list[tuple[int, int, int, int]]]:
        """(left, top, width, height) of the faces of each picture, in pixels, clipped to it."""
        ...


Line = tuple[int, int, int, int]
"""The two ends of a straight line: x and y of the first, x and y of the second, in pixels."""


@dataclass(frozen=True, slots=True)
class LineSearch:
    """What counts as an edge and as a line; defaults of Data-Juicer's search for subplots.

    Args:
        weak_edge, strong_edge: Canny's two thresholds of the brightness gradient.
        votes: edge pixels that a line needs.
        min_length_px: shortest line. max_gap_px: longest gap inside a line.
    """

    weak_edge: int = 70
    strong_edge: int = 190
    votes: int = 110
    min_length_px: int = 110
    max_gap_px: int = 18


@runtime_checkable
class LineDetector(Protocol):
    """Finds straight lines."""

    digest: str

    def lines(self, images: Sequence[Image], search: LineSearch = LineSearch()) -> list[list[Line]]:
        """The lines of each picture."""
        ...


@runtime_checkable
class TextConverter(Protocol):
    """Writes a text in other characters."""

    def convert(self, text: str) -> str:
        """The text converted."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """Tells the foreground of a picture from its background."""

    digest: str

    def foreground(self, images: Sequence[Image]) -> list[FloatArray]:
        """[height, width] share of foreground, 0 to 1, of each picture."""
        ...
