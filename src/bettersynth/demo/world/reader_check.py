"""How well the rule-based reader reads: on pictures as drawn, blurred, noisy, and stored as JPEG."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from bettersynth.core.seed import generator
from bettersynth.demo.world.reader import Reading, read
from bettersynth.demo.world.render import render
from bettersynth.demo.world.scene import Scene, sample_scene
from bettersynth.demo.world.vocab import BASE_VOCAB, EVAL_VOCAB


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether a reading equals its scene, part by part."""

    objects: bool
    colours: bool
    counts: bool
    positions: bool
    numbers: bool
    text: bool
    background: bool

    @property
    def everything(self) -> bool:
        """All parts."""
        parts = (self.objects, self.colours, self.counts, self.positions, self.numbers, self.text, self.background)
        return all(parts)


def agreement(scene: Scene, reading: Reading) -> Agreement:
    """Compare a reading with what was drawn."""

    def same(key: str) -> bool:
        return Counter(getattr(t, key) for t in scene.things) == Counter(getattr(t, key) for t in reading.things)

    return Agreement(
        objects=same("kind"),
        colours=same("combo"),
        counts=len(scene.things) == len(reading.things),
        positions=same("cell"),
        numbers=same("number"),
        text=[(s.word, s.row) for s in scene.signs] == [(s.word, s.row) for s in reading.signs],
        background=scene.background == reading.background,
    )


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to a picture: blur (standard deviation in px), then noise (in grey levels), then JPEG (0: none)."""

    blur: float = 0.0
    noise: float = 0.0
    jpeg: int = 0

    def __str__(self) -> str:
        parts = [f"blur {self.blur:g} px"] * bool(self.blur) + [f"noise {self.noise:g}"] * bool(self.noise)
        return " + ".join(parts + [f"JPEG {self.jpeg}"] * bool(self.jpeg)) or "as drawn"


DAMAGES = (
    Damage(),
    Damage(jpeg=75),
    Damage(blur=0.5),
    Damage(blur=1.0),
    Damage(blur=1.5),
    Damage(blur=2.0),
    Damage(noise=10),
    Damage(noise=20),
    Damage(noise=40),
    Damage(blur=1.0, noise=10),
    Damage(blur=1.5, noise=20, jpeg=75),
)


def degrade(image: Image.Image, damage: Damage, *, seed: int = 0) -> Image.Image:
    """A damaged copy of a picture; the noise is Gaussian and drawn from the seed."""
    blur, noise = damage.blur, damage.noise
    pixels = np.asarray(image, dtype=np.float32)
    if blur:
        pixels = gaussian_filter(pixels, (blur, blur, 0), mode="nearest")
    if noise:
        pixels = pixels + np.random.default_rng(seed).normal(0.0, noise, pixels.shape)
    found = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    if not damage.jpeg:
        return found
    stream = io.BytesIO()
    found.save(stream, "JPEG", quality=damage.jpeg)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


PARTS = (*(item.name for item in fields(Agreement)), "everything")


def draw_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes of both vocabularies in turn."""
    rng: random.Random = generator(seed, "demo-world", "reader")
    return [sample_scene(rng, EVAL_VOCAB if index % 2 else BASE_VOCAB) for index in range(count)]


def accuracy(
    count: int,
    *,
    seed: int = 0,
    damages: Sequence[Damage] = DAMAGES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, float]]:
    """Share of pictures (0-1) read right, by damage and by part (see :class:`Agreement`)."""
    scenes = draw_scenes(count, seed)
    table: dict[str, dict[str, float]] = {}
    for number, damage in enumerate(damages):
        right: Counter[str] = Counter()
        for index, scene in enumerate(scenes):
            found = agreement(scene, read(degrade(render(scene), damage, seed=index)))
            right.update(name for name in PARTS if getattr(found, name))
            progress(number * count + index + 1, count * len(damages))
        table[str(damage)] = {name: right[name] / count for name in PARTS}
    return table
