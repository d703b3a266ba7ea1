"""OpenAI-style requests to unified requests, and results back: chat with pictures in both directions, and pictures.

Beyond OpenAI's fields a request may hold any option of :class:`UnifiedRequest` and of the drawing settings (``output``,
``think``, ``image_size``, ``num_timesteps``, ...). Pictures come and go as ``data:`` URLs; the server fetches nothing.
"""

from __future__ import annotations

import base64
import binascii
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import Image

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.infer.unified_options import parse_size
from bettersynth.infer.unified_run import png
from bettersynth.infer.unified_types import Part, UnifiedRequest, UnifiedResult, request_of

MAX_ANSWERS, MAX_TOKENS, MAX_STEPS, MAX_PICTURES, MAX_STOPS = 8, 8192, 250, 16, 16
MAX_PIXELS = 40_000_000
"""Of a picture that comes in; those that go out have sides of at most ``MAX_SIDE_PX``."""
MAX_SIDE_PX = 2048
_ROLES = ("system", "developer", "user", "assistant", "tool")
_OPENAI_TEXT = (
    "model messages stream n max_tokens max_completion_tokens temperature seed modalities user "
    "presence_penalty frequency_penalty response_format stream_options metadata prompt size quality style background "
    "logprobs store"
)
_OPENAI_KEYS = frozenset(_OPENAI_TEXT.split())
"""Fields that are OpenAI's own; those that have no meaning here are ignored, as other local servers do."""
_NOT_FOR_CLIENTS = ("parts", "noise", "settings", "overrides")


@dataclass(frozen=True, slots=True)
class Call:
    """A request over the wire: one unified request for each wanted answer, whether to stream, and usage at its end."""

    requests: tuple[UnifiedRequest, ...]
    is_stream: bool = False
    has_usage: bool = False


def chat_call(body: Mapping[str, Any]) -> Call:
    """From the body of ``/v1/chat/completions``.

    Raises:
        ConfigError: a field is missing or wrong. DataError: a picture is no picture.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ConfigError(t("needed: {flags}", flags="messages"), where="messages", expected="[{role, content}, ...]")
    parts: list[Part] = []
    for number, message in enumerate(messages):
        parts += _message(message, f"messages[{number}]")
    if sum(part.is_image for part in parts) > MAX_PICTURES:
        raise ConfigError(t("too many pictures"), where="messages", expected=t("at most {n}", n=MAX_PICTURES))
    if not parts:
        raise ConfigError(t("nothing was asked for"), where="messages")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise ConfigError(t("unsupported value"), where="stream_options", got=options, expected="{include_usage: true}")
    is_stream, has_usage = _claim(body, "stream"), _claim(options or {}, "include_usage")
    return Call(_requests(tuple(parts), body, _chat_output(body)), is_stream, has_usage)


def image_call(body: Mapping[str, Any]) -> Call:
    """From the body of ``/v1/images/generations``; raises like :func:`chat_call`."""
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise ConfigError(t("needed: {flags}", flags="prompt"), where="prompt")
    if body.get("response_format", "b64_json") != "b64_json":
        raise ConfigError(
            t("unsupported value"), where="response_format", got=body["response_format"], expected="b64_json"
        )
    return Call(_requests((Part(prompt),), body, "image"))


def _chat_output(body: Mapping[str, Any]) -> Any:
    if "output" in body:
        return body["output"]
    modalities = body.get("modalities")
    if modalities is None:
        return "auto"
    if not isinstance(modalities, list) or not modalities or not {"text", "image"} >= set(map(str, modalities)):
        raise ConfigError(t("unsupported value"), where="modalities", got=modalities, expected='["text", "image"]')
    if len(set(modalities)) == 2:
        return "auto"
    return ("image",) if "image" in modalities else ("text",)


def _requests(parts: tuple[Part, ...], body: Mapping[str, Any], output: Any) -> tuple[UnifiedRequest, ...]:
    for key in _NOT_FOR_CLIENTS:
        if key in body:
            raise ConfigError(t("unknown option '{name}'", name=key), where=key)
    options = {key: value for key, value in body.items() if key not in _OPENAI_KEYS and key != "output"}
    tokens = _whole(body, "max_completion_tokens", most=MAX_TOKENS) or _whole(body, "max_tokens", most=MAX_TOKENS)
    seed = body.get("seed")
    options |= {
        "output": output,
        "max_new_tokens": tokens or options.get("max_new_tokens"),
        "temperature": _temperature(body),
        "image_size": _size(body),
    }
    request = request_of(UnifiedRequest(parts=parts), options)
    _check_bounds(request)
    first = int(time.time_ns() % 2**31) if seed is None else _whole(body, "seed", least=0, most=2**63) or 0
    count = _whole(body, "n", most=MAX_ANSWERS) or 1
    return tuple(replace(request, seed=first + index) for index in range(count))


def _check_bounds(request: UnifiedRequest) -> None:
    """No request takes the model for as long as it likes, whatever name it gave its option."""
    steps = request.drawing(has_image=request.has_image).num_timesteps
    answers = 1 if isinstance(request.output, str) else len(request.output)
    for name, value, most in (
        ("max_new_tokens", request.max_new_tokens, MAX_TOKENS),
        ("max_think_tokens", request.max_think_tokens, MAX_TOKENS),
        ("num_timesteps", steps, MAX_STEPS),
        ("max_outputs", request.max_outputs, MAX_ANSWERS),
        ("stop", len(request.stop), MAX_STOPS),
        ("output", answers, MAX_ANSWERS),
    ):
        if value > most:
            raise ConfigError(t("unsupported value"), where=name, got=value, expected=f"1 ... {most}")
    if request.image_size is not None and max(request.image_size) > MAX_SIDE_PX:
        raise ConfigError(
            t("a picture of this size is not drawn here"),
            where="image_size",
            got="x".join(map(str, request.image_size)),
            expected=t("sides of at most {n} pixels, and what the model can draw", n=MAX_SIDE_PX),
        )


def _whole(body: Mapping[str, Any], key: str, *, least: int = 1, most: int | None = None) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        expected = t("at least {n}", n=least) if most is None else f"{least} ... {most}"
        raise ConfigError(t("unsupported value"), where=key, got=value, expected=expected)
    return value


def _claim(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise ConfigError(t("unsupported value"), where=key, got=value, expected="true | false")
    return bool(value)


def _temperature(body: Mapping[str, Any]) -> float | None:
    """As asked; OpenAI's default of 1 for who gives ``top_p`` alone, which says nothing about greedy texts."""
    value = body.get("temperature")
    if value is None:
        return None if body.get("top_p") is None else 1.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10:
        raise ConfigError(t("unsupported value"), where="temperature", got=value, expected="0 ... 10")
    return float(value)


def _size(body: Mapping[str, Any]) -> tuple[int, int] | None:
    value = body.get("image_size", body.get("size"))
    if value is None or value == "auto":
        return None
    return parse_size(value, "size")


def _message(message: Any, where: str) -> list[Part]:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        got = message.get("role") if isinstance(message, dict) else type(message).__name__
        raise ConfigError(t("unsupported value"), where=f"{where}.role", got=got, expected=" | ".join(_ROLES))
    is_own = message["role"] == "assistant"
    content = message.get("content")
    pieces = [{"type": "text", "text": content}] if isinstance(content, str) else (content or [])
    if not isinstance(pieces, list):
        raise ConfigError(t("unsupported value"), where=f"{where}.content", got=type(content).__name__)
    images = message.get("images") or []  # as our own answers hold them
    if not isinstance(images, list):
        raise ConfigError(t("unsupported value"), where=f"{where}.images", got=type(images).__name__)
    pieces = [*pieces, *images]
    return [
        replace(part, is_own=is_own)
        for number, piece in enumerate(pieces)
        for part in _piece(piece, f"{where}.content[{number}]")
    ]


def _piece(piece: Any, where: str) -> list[Part]:
    kind = piece.get("type") if isinstance(piece, dict) else None
    if kind in ("text", "input_text", "output_text") and isinstance(piece.get("text"), str):
        return [Part(piece["text"])] if piece["text"] else []
    if kind in ("image_url", "input_image"):
        url = piece.get("image_url")
        return [Part(picture_of(url.get("url") if isinstance(url, dict) else url, where))]
    raise ConfigError(t("unsupported value"), where=f"{where}.type", got=kind, expected="text | image_url")


def picture_of(url: Any, where: str) -> Image.Image:
    """The picture of a ``data:`` URL.

    Raises:
        ConfigError: another kind of URL; nothing is ever fetched or read from disk for a client.
        DataError: no picture, a damaged or a huge one.
    """
    if not isinstance(url, str) or not url.startswith("data:"):
        raise ConfigError(
            t("pictures must come inside the request"),
            where=where,
            got=str(url)[:60],
            expected="data:image/png;base64,...",
            hint=t("the server fetches no addresses and reads no files for a client"),
        )
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise DataError(t("damaged image"), where=where, expected="data:image/png;base64,...")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=("PNG", "JPEG", "WEBP", "GIF"))
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                t("the picture is too large"),
                where=where,
                got=f"{image.width}x{image.height}",
                expected=f"{MAX_PIXELS} px",
            )
        image.load()
    except (OSError, ValueError, SyntaxError, binascii.Error, Image.DecompressionBombError) as error:
        raise DataError(t("damaged image"), where=where, got=type(error).__name__) from error
    return image


def url_of(image: Image.Image) -> str:
    """A picture as a ``data:`` URL (PNG)."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


# --- answers ------------------------------------------------------------------------------------------------------


def chat_answer(model: str, results: Sequence[UnifiedResult]) -> dict[str, Any]:
    """The body of a chat completion.

    ``message.content`` holds the texts, ``message.images`` the pictures in OpenAI's content form, and
    ``message.bettersynth`` the true order, thoughts, and who decided what.
    """
    choices = []
    for index, result in enumerate(results):
        choices.append({"index": index, "message": _chat_message(result), "finish_reason": _finish(result)})
    return {
        "id": f"chatcmpl-{digest_json([time.time_ns(), model])[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": _usage(results),
    }


def _chat_message(result: UnifiedResult) -> dict[str, Any]:
    images = [{"type": "image_url", "image_url": {"url": url_of(image)}} for image in result.images]
    order: list[dict[str, Any]] = []
    drawn = 0
    for output in result.outputs:
        piece: dict[str, Any] = {"type": output.kind, "how": output.decision.how, "reason": output.decision.reason}
        if output.kind == "image":
            piece["index"] = drawn
            drawn += 1
        else:
            piece["text"] = output.text
        order.append(piece)
    details = {"order": order, "decisions": [asdict(decision) for decision in result.decisions], "seed": result.seed}
    message: dict[str, Any] = {"role": "assistant", "content": result.text, "images": images, "bettersynth": details}
    if result.thoughts:
        message["reasoning_content"] = "\n".join(result.thoughts)
    return message


def _finish(result: UnifiedResult) -> str:
    return "length" if any(output.finish == "length" for output in result.outputs) else "stop"


def _usage(results: Sequence[UnifiedResult]) -> dict[str, int]:
    written = sum(len(output.ids) for result in results for output in result.outputs)
    drawn = sum(len(o.latent) for result in results for o in result.outputs if o.latent is not None)
    read = results[0].num_read if results else 0
    return {"prompt_tokens": read, "completion_tokens": written + drawn, "total_tokens": read + written + drawn}


def chat_chunks(answer: Mapping[str, Any], *, has_usage: bool = False) -> list[dict[str, Any]]:
    """A finished chat completion as the chunks of a stream: role, texts, pictures, end, and usage if asked for."""
    head = {key: answer[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    head |= {"usage": None} if has_usage else {}
    chunks: list[dict[str, Any]] = []
    for choice in answer["choices"]:
        message, index = choice["message"], choice["index"]
        extra = {key: value for key, value in message.items() if key not in ("role", "content")}
        for delta in ({"role": "assistant", "content": ""}, {"content": message["content"]}, extra):
            chunks.append({**head, "choices": [{"index": index, "delta": delta, "finish_reason": None}]})
        chunks.append({**head, "choices": [{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if has_usage:
        chunks.append({**head, "choices": [], "usage": answer["usage"]})
    return chunks


def image_answer(results: Sequence[UnifiedResult]) -> dict[str, Any]:
    """The body of an image generation."""
    pictures = [{"b64_json": base64.b64encode(png(image)).decode()} for r in results for image in r.images]
    return {"created": int(time.time()), "data": pictures, "usage": _usage(results)}
