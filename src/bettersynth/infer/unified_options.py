"""Values of options that come from outside: command lines, files of requests, clients of the server.

A wrong one is named before any model runs; a text where a number belongs would otherwise end a batch at its first step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t

if TYPE_CHECKING:
    from bettersynth.models.bagel.config import BagelConfig

RENAMED = {
    "enable_taylorseer": "taylorseer",
    "text_temperature": "temperature",
    "size": "image_size",
    "steps": "num_timesteps",
    "shift": "timestep_shift",
    "cfg_text": "cfg_text_scale",
    "cfg_img": "cfg_img_scale",
    "renorm": "cfg_renorm_type",
    "renorm_min": "cfg_renorm_min",
}
"""Names of the original and of the command line's flags, and what they are called here."""

_MOST_STRETCHED = 4
"""A model that interpolates its positions draws sides of up to this many times its table; more is refused."""

_LEAST = {"max_new_tokens": 1, "max_think_tokens": 1, "max_outputs": 1, "num_timesteps": 2}
_RANGES = {
    "temperature": (0.0, math.inf),
    "top_p": (0.0, 1.0),
    "timestep_shift": (0.0, math.inf),
    "cfg_text_scale": (0.0, math.inf),
    "cfg_img_scale": (0.0, math.inf),
    "cfg_renorm_min": (0.0, 1.0),
}
_ABOVE = ("timestep_shift", "top_p")  # the lower bound itself would put every point in time at 0, or leave no token


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with sizes and intervals as tuples.

    Raises:
        ConfigError: a value of another kind, or out of its range; names the option and what it may be.
    """
    return {name: _checked(name, value) for name, value in options.items()}


def parse_size(value: Any, where: str = "image_size") -> tuple[int, int]:
    """``"1024x768"`` or ``[1024, 768]`` to (1024, 768), width first.

    Raises:
        ConfigError: it is something else.
    """
    sides = _sides(value)
    if sides is None:
        raise _wrong(where, value, t("WIDTHxHEIGHT, e.g. 1024x768"))
    return sides


def parse_shape(value: Any) -> tuple[int, int]:
    """The original's ``image_shapes``, height first, as (width, height).

    Raises:
        ConfigError: it is something else.
    """
    sides = _sides(value)
    if sides is None:
        raise _wrong("image_shapes", value, t("HEIGHT and WIDTH, the height first, e.g. [768, 1024]"))
    return sides[::-1]


def _sides(value: Any) -> tuple[int, int] | None:
    """Two whole numbers of at least 1, as a list or with an x between them; None for anything else."""
    sides = value.lower().split("x") if isinstance(value, str) else value
    if isinstance(sides, (list, tuple)) and len(sides) == 2:
        width, height = (int(side) if isinstance(side, str) and side.isdecimal() else side for side in sides)
        if _is_whole(width) and _is_whole(height) and min(width, height) > 0:
            return int(width), int(height)
    return None


def check_size(config: BagelConfig, size: tuple[int, int] | None) -> None:
    """Raise ConfigError for a size (width, height) in pixels beyond what the model's table of positions can draw."""
    most = config.max_latent_size * config.latent_stride_px * (_MOST_STRETCHED if config.interpolate_pos else 1)
    if size is None or all(config.latent_stride_px <= side <= most for side in size):
        return
    raise ConfigError(
        t("a picture of this size cannot be drawn"),
        where="image_size",
        got="x".join(map(str, size)),
        expected=t("sides of {low} to {high} pixels", low=config.latent_stride_px, high=most),
    )


def check_length(config: BagelConfig, num_tokens: int) -> None:
    """Raise ConfigError for more tokens of text than the model can read."""
    if num_tokens <= config.llm.max_position_embeddings:
        return
    raise ConfigError(
        t("the texts are longer than what the model can read"),
        where="prompt",
        got=t("{n} tokens", n=num_tokens),
        expected=t("at most {n}", n=config.llm.max_position_embeddings),
    )


def _checked(name: str, value: Any) -> Any:
    if name in _LEAST and not (_is_whole(value) and value >= _LEAST[name]):
        raise _wrong(name, value, t("a whole number of at least {n}", n=_LEAST[name]))
    if name == "seed" and not _is_whole(value):
        raise _wrong(name, value, t("a whole number"))
    if name in _RANGES:
        low, high = _RANGES[name]
        if not (_is_number(value) and low <= value <= high) or (name in _ABOVE and value == low):
            raise _wrong(name, value, _range(name))
    if name in ("taylorseer", "think") and not (isinstance(value, bool) or (name == "think" and _are_ids(value))):
        raise _wrong(name, value, "true | false")
    if name == "output" and not (isinstance(value, str) or _are_texts(value)):
        raise _wrong(name, value, t("one of: {names}", names="auto, learned, rule, text, image, text,image …"))
    if name == "image_size":
        return parse_size(value)
    if name == "stop":
        return _stops(value)
    if name == "cfg_interval":
        return _interval(value)
    return tuple(value) if name == "think" and not isinstance(value, bool) else value


def _stops(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not _are_texts(texts) or "" in texts:
        raise _wrong("stop", value, t("a text or a list of texts, none of them empty"))
    return tuple(texts)


def _interval(value: Any) -> tuple[float, float]:
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]:
        return float(value[0]), float(value[1])
    raise _wrong("cfg_interval", value, t("two numbers, the smaller one first, e.g. 0.4 1.0"))


def _range(name: str) -> str:
    low, high = _RANGES[name]
    if name in _ABOVE:
        bound = t("a number above {n}", n=f"{low:g}")
        return bound if high == math.inf else t("{bound}, at most {n}", bound=bound, n=f"{high:g}")
    return t("a number of at least {n}", n=f"{low:g}") if high == math.inf else f"{low:g} ... {high:g}"


def _wrong(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(t("unsupported value"), where=name, got=value, expected=expected)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _are_ids(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(_is_whole, value))


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
