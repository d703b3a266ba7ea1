"""Pixels of both towers from PNG files, at the set's small sizes and at the real ones."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file

from bettersynth.media.open import open_image
from bettersynth.media.resize import to_square_pixels
from bettersynth.models.mgm.model import low_resolution_views, normalise_pixels

_KEY = re.compile(
    r"(?P<name>.+?)\.(?P<mode>pad|square)\.(?:real(?P<real>\d+)\.)?(?P<view>low|aux)(?:_sub(?P<sub>\d+))?$"
)


@pytest.fixture(scope="module")
def pixels(golden):
    return load_file(golden.path("preprocess.safetensors"))


def _views(golden, name, mode, low, aux):
    array = to_square_pixels(open_image(golden.path(f"images/{name}.png")), size_px=aux, aspect_ratio=mode)
    high = normalise_pixels(torch.from_numpy(array.copy()).unsqueeze(0))
    return low_resolution_views(high, low)[0, 0], high[0]


@pytest.mark.parametrize("mode", ["pad", "square"])
def test_small_sizes(golden, pixels, mode, assert_close):
    facts = golden.json("preprocess.json")
    checked = 0
    for image in facts["images"]:
        key = f"{image['name']}.{mode}"
        if f"{key}.aux" not in pixels:
            continue
        low, aux = _views(golden, image["name"], mode, facts["raw_size"], facts["aux_size"])
        assert_close(low, pixels[f"{key}.low"], 2e-6)
        assert_close(aux, pixels[f"{key}.aux"], 2e-6)
        checked += 1
    assert checked


def test_real_sizes(golden, pixels, assert_close):
    found = [match for match in map(_KEY.match, sorted(pixels)) if match and match["real"]]
    sizes = {match["view"]: int(match["real"]) for match in found}
    if set(sizes) != {"low", "aux"}:
        pytest.skip("the golden set has no tensors of real size")
    for match in found:
        low, aux = _views(golden, match["name"], match["mode"], sizes["low"], sizes["aux"])
        step = int(match["sub"])
        got = (low if match["view"] == "low" else aux)[:, ::step, ::step]
        assert_close(got, pixels[match.string], 2e-6)
