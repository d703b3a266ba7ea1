"""What goes into unified generation and what comes out: parts, requests, decisions, results."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean
from bettersynth.infer.image_rule import Kind
from bettersynth.infer.unified_options import RENAMED, checked, parse_shape
from bettersynth.models.bagel.draw import DrawSettings

How = Literal["control", "learned", "rule"]
Value = str | tuple[int, ...] | Image.Image
"""A text, a text as ids without markers, or a picture."""

MODES = ("auto", "learned", "rule")
EDIT_SETTINGS = DrawSettings(cfg_img_scale=2.0, cfg_interval=(0.0, 1.0), cfg_renorm_type="text_channel")
"""How the original's demo edits pictures; without an input picture the defaults of :class:`DrawSettings` hold."""

_DRAW_KEYS = tuple(item.name for item in fields(DrawSettings))


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of what a model has read; ``is_own`` when the model itself made it."""

    value: Value
    is_own: bool = False

    @property
    def is_image(self) -> bool:
        """Whether it is a picture."""
        return isinstance(self.value, Image.Image)


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a text or a picture was begun, or why nothing more was.

    Attributes:
        kind: ``text``, ``image`` or ``end``.
        how: ``control`` (the caller said so), ``learned`` (the model's own marker) or ``rule`` (from words).
        reason: what was seen: the words that fitted, or probabilities of the markers.
    """

    kind: Literal["text", "image", "end"]
    how: How
    reason: str


@dataclass(frozen=True, slots=True)
class Output:
    """One piece of an answer.

    Attributes:
        kind: ``thought``, ``text`` or ``image``.
        decision: why it was begun.
        text: of a thought or text ("" without a tokenizer).
        ids: the same as ids, markers left out.
        finish: ``stop`` when the model ended it, ``length`` when it was cut.
        image: the picture.
        latent: (N, P) latent tokens of the picture.
    """

    kind: Literal["thought", "text", "image"]
    decision: Decision
    text: str = ""
    ids: tuple[int, ...] = ()
    finish: Literal["stop", "length"] = "stop"
    image: Image.Image | None = None
    latent: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class UnifiedResult:
    """An answer: texts and pictures in order, and every decision that was taken, the last one included.

    Attributes:
        num_read: tokens that the model had read when it began to answer.
    """

    outputs: tuple[Output, ...]
    decisions: tuple[Decision, ...]
    seed: int
    num_read: int = 0

    @property
    def text(self) -> str:
        """All texts, thoughts left out."""
        return "\n".join(output.text for output in self.outputs if output.kind == "text")

    @property
    def thoughts(self) -> tuple[str, ...]:
        """What was thought before texts and pictures."""
        return tuple(output.text for output in self.outputs if output.kind == "thought")

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """All pictures."""
        return tuple(output.image for output in self.outputs if output.image is not None)

    @property
    def segments(self) -> list[str | Image.Image]:
        """Texts and pictures in order, thoughts left out."""
        return [output.image or output.text for output in self.outputs if output.kind != "thought"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnifiedRequest:
    """What is asked for.

    Attributes:
        parts: texts and pictures in order; a dialogue is simply read on.
        output: ``auto`` (the learned rule where the model has one, else the decision rule), ``learned``, ``rule``, or
            explicit control: the kinds of the answer in order, e.g. ``("text", "image")``.
        think: let the model think first; ids are a system prompt of one's own instead of ours.
        image_size: (width, height) in pixels; by default that of the last input picture, else the model's largest
            square up to 1024.
        max_new_tokens: longest text.
        max_think_tokens: longest thought.
        temperature: of text; 0 is greedy.
        top_p: of text: draw from the likeliest tokens whose chances reach this sum; no effect when greedy.
        stop: strings that end a text; it holds what stands before the first of them. They are not looked for in
            thoughts. What was explicitly asked for still follows; else the answer ends there.
        seed: of start noise and drawn text; equal seeds give equal answers, whatever else is in the batch.
        settings: guidance and steps; by default those for editing if a picture was given, else for text to image.
        overrides: (name, value) of single settings over these.
        max_outputs: most texts and pictures of an answer when nothing is controlled.
        noise: start noise of the first picture (for tests).
    """

    parts: tuple[Part, ...]
    output: str | tuple[Kind, ...] = "auto"
    think: bool | tuple[int, ...] = False
    image_size: tuple[int, int] | None = None
    max_new_tokens: int = 512
    max_think_tokens: int = 1000
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    settings: DrawSettings | None = None
    overrides: tuple[tuple[str, Any], ...] = ()
    max_outputs: int = 8
    noise: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.output, str):
            is_known = self.output in MODES
        else:  # an answer of nothing is none
            is_known = len(self.output) > 0 and all(kind in ("text", "image") for kind in self.output)
        if not is_known:
            raise ConfigError(
                t("unsupported value"),
                where="output",
                got=self.output if isinstance(self.output, str) else ",".join(self.output) or "[]",
                expected=t("one of: {names}", names=", ".join((*MODES, "text", "image", "text,image …"))),
            )
        for name in ("max_new_tokens", "max_think_tokens", "max_outputs"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    t("unsupported value"), where=name, got=getattr(self, name), expected=t("at least {n}", n=1)
                )
        if not -(2**63) <= self.seed < 2**64:
            raise ConfigError(t("unsupported value"), where="seed", got=self.seed, expected="-2^63 ... 2^64 - 1")
        for where, text in [*(("prompt", part.value) for part in self.parts), *(("stop", stop) for stop in self.stop)]:
            if isinstance(text, str) and not _is_unicode(text):
                raise ConfigError(t("half of a letter is missing in this text"), where=where, got=ascii(text)[:60])

    @property
    def has_image(self) -> bool:
        """Whether a picture is among the parts."""
        return any(part.is_image for part in self.parts)

    def drawing(self, *, has_image: bool) -> DrawSettings:
        """The settings in force in a conversation with or without a picture; ConfigError if one is unsupported."""
        usual = EDIT_SETTINGS if has_image else DrawSettings()
        return replace(self.settings or usual, **dict(self.overrides))


def _is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON may hold one half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parts_of(prompt: Any) -> tuple[Part, ...]:
    """Parts from what callers have at hand.

    Args:
        prompt: a text, a picture (Pillow image, path or encoded bytes), ids, or a sequence of those. A dictionary is
            a text or a picture of a conversation record: ``{"type": "image", "image_path": ...}``, with ``role``
            ``assistant`` for what the model said before.

    Raises:
        DataError: a picture is missing or damaged, or something is neither text nor picture; says which.
    """
    items = prompt if isinstance(prompt, (list, tuple)) and not _is_ids(prompt) else [prompt]
    return tuple(_part(item, f"segment {number}") for number, item in enumerate(items, 1))


def _is_ids(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(type(item) is int for item in value)


def _part(item: Any, where: str) -> Part:
    if isinstance(item, Part):
        return item
    if isinstance(item, Mapping):
        return replace(_segment(item, where), is_own=item.get("role") == "assistant")
    if isinstance(item, (str, Image.Image)):
        return Part(item)
    if _is_ids(item):
        return Part(tuple(item))
    if isinstance(item, (bytes, Path)):
        return Part(open_picture(item, where))
    raise DataError(
        t("neither a text nor a picture"), where=where, got=type(item).__name__, expected="str, PIL.Image, path, bytes"
    )


def _segment(item: Mapping[str, Any], where: str) -> Part:
    """A text or picture of a conversation record; a path stays a path, and is never taken for a text."""
    kind = item.get("type", "text")
    if kind not in ("text", "image"):
        raise DataError(t("unsupported value"), where=f"{where} type", got=kind, expected="text | image")
    if kind == "text":
        return _part(item.get("content", item.get("text")), where)
    picture = item.get("image_path", item.get("image"))
    return _part(Path(picture) if isinstance(picture, str) else picture, where)


def open_picture(source: bytes | Path, where: str) -> Image.Image:
    """A whole decoded picture.

    Raises:
        DataError: missing or damaged.
    """
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        image.load()
    except FileNotFoundError as error:
        raise DataError(t("image not found"), where=where, got=source) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(t("damaged image"), where=where, got=error) from error
    return image


def request_of(prompt: Any, options: Mapping[str, Any]) -> UnifiedRequest:
    """A request from a prompt and keyword options; the original's option names are understood too.

    Raises:
        ConfigError: an option is unknown; names the nearest one.
    """
    request = prompt if isinstance(prompt, UnifiedRequest) else UnifiedRequest(parts=parts_of(prompt))
    request = replace(request, **_known(options))
    request.drawing(has_image=request.has_image)  # complains now, not after the text has been written
    return request


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    given = {RENAMED.get(key, key): value for key, value in options.items() if value is not None}
    if given.pop("do_sample", True) is False:
        given["temperature"] = 0.0
    if given.pop("understanding_output", False):
        given.setdefault("output", ("text",))
    if "max_think_token_n" in given:  # the original counts the marker that is fed first
        longest = checked({"max_new_tokens": given.pop("max_think_token_n")})["max_new_tokens"] - 1
        given |= {"max_think_tokens": longest, "max_new_tokens": given.get("max_new_tokens", longest)}
    if "image_shapes" in given:
        given.setdefault("image_size", parse_shape(given.pop("image_shapes")))
    given = checked(given)
    if isinstance(given.get("output"), str) and given["output"] not in MODES:
        given["output"] = tuple(given["output"].replace(" ", "").split(","))
    elif isinstance(given.get("output"), list):
        given["output"] = tuple(given["output"])
    drawing = {key: given.pop(key) for key in _DRAW_KEYS if key in given}
    known = [item.name for item in fields(UnifiedRequest) if item.name != "parts"]
    for key in given:
        if key not in known:
            raise ConfigError(
                t("unknown option '{name}'", name=key), hint=did_you_mean(key, [*known, *_DRAW_KEYS, *RENAMED])
            )
    if drawing:
        given["overrides"] = tuple(sorted(drawing.items()))
    return given
