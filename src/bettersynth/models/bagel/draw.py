"""Pictures out of contexts: Euler steps of the rectified flow under text and image guidance.

All guidance branches of all pictures go through the network in one forward; a branch that would repeat another one
is not computed.

Shape letters: N latent tokens of a picture, P numbers per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.models.bagel.context import Block, Context, forward, image_block, latent_ids, route
from bettersynth.models.bagel.model import BagelModel, shift_time
from bettersynth.models.bagel.packing import unpatchify
from bettersynth.models.bagel.taylor import TaylorState
from bettersynth.models.layers.mot import Routing, Rows

RENORMS = ("global", "channel", "text_channel", "batch_global")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawSettings:
    """How pictures are drawn.

    Attributes:
        num_timesteps: points in time; one fewer update is made.
        timestep_shift: shift of the time towards noise.
        cfg_text_scale: guidance away from the context without the text; 1 or less switches all guidance off.
        cfg_img_scale: guidance away from the context without the pictures; 1 or less switches it off.
        cfg_interval: guidance acts while low < shifted time <= high.
        cfg_renorm_type: ``global`` (one norm per picture), ``channel`` (per token), ``text_channel`` (per token, before
            image guidance), ``batch_global`` (one norm over the whole batch, as the original's batches have it).
        cfg_renorm_min: smallest factor of the renorm; 1 switches it off.
        taylorseer: predict most steps from earlier ones instead of computing them.
    """

    num_timesteps: int = 50
    timestep_shift: float = 3.0
    cfg_text_scale: float = 4.0
    cfg_img_scale: float = 1.5
    cfg_interval: tuple[float, float] = (0.4, 1.0)
    cfg_renorm_type: str = "global"
    cfg_renorm_min: float = 0.0
    taylorseer: bool = False

    def __post_init__(self) -> None:
        if self.cfg_renorm_type not in RENORMS:
            expected = t("one of: {names}", names=", ".join(RENORMS))
            raise ConfigError(
                t("unsupported value"), where="cfg_renorm_type", got=self.cfg_renorm_type, expected=expected
            )
        if self.num_timesteps < 2:
            raise ConfigError(
                t("unsupported value"), where="num_timesteps", got=self.num_timesteps, expected=t("at least {n}", n=2)
            )

    def times(self) -> list[float]:
        """Shifted times from 1 to 0."""
        return shift_time(torch.linspace(1, 0, self.num_timesteps), self.timestep_shift).tolist()

    def is_guided(self, time: float) -> bool:
        """Whether guidance acts at a shifted time."""
        low, high = self.cfg_interval
        return self.cfg_text_scale > 1 and low < time <= high


@dataclass(frozen=True)
class Drawing:
    """One picture to draw: its size in latent tokens, its start noise (N, P), and its three contexts."""

    rows: int
    cols: int
    noise: torch.Tensor
    gen: Context
    cfg_text: Context = field(default_factory=Context)
    cfg_img: Context | None = None


@dataclass
class Trace:
    """What happened at each update (for tests): latents before, guided velocity, time."""

    x: list[list[torch.Tensor]] = field(default_factory=list)
    v: list[list[torch.Tensor]] = field(default_factory=list)
    time: list[float] = field(default_factory=list)


def start_noise(model: BagelModel, rows: int, cols: int, seed: int) -> torch.Tensor:
    """(N, P) standard normal numbers that depend on the seed and the size alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows * cols, model.config.latent_dim, generator=generator)


class _Painter:
    """The branches of all pictures, with what stays the same from step to step."""

    def __init__(self, model: BagelModel, drawings: Sequence[Drawing], settings: DrawSettings) -> None:
        self.model, self.drawings, self.settings = model, drawings, settings
        self.places = [latent_ids(model, drawing.rows, drawing.cols) for drawing in drawings]
        self.states: dict[tuple[int, str], TaylorState] = {}
        self.routings: dict[tuple[tuple[int, str], ...], Routing] = {}

    def branches(self, drawing: Drawing, is_guided: bool) -> dict[str, Context]:
        """Contexts that must be computed: ``v``, and under guidance ``u`` and ``m`` unless they repeat another."""
        found = {"v": drawing.gen}
        if is_guided and drawing.cfg_text.history != drawing.gen.history:
            found["u"] = drawing.cfg_text
        image = drawing.cfg_img
        if is_guided and self.settings.cfg_img_scale > 1 and image is not None and self._source(drawing) == "m":
            found["m"] = image
        return found

    @staticmethod
    def _source(drawing: Drawing) -> str:
        """Which branch gives the velocity of the context without pictures."""
        image = drawing.cfg_img
        if image is None or image.history == drawing.gen.history:
            return "v"
        return "u" if image.history == drawing.cfg_text.history else "m"

    def velocities(self, x: Sequence[torch.Tensor], time: float) -> list[torch.Tensor]:
        """Guided velocity (N, P) of every picture at a shifted time."""
        is_guided = self.settings.is_guided(time)
        found = self._compute(x, time, [self.branches(drawing, is_guided) for drawing in self.drawings])
        if not is_guided:
            return [branch["v"] for branch in found]
        results = []
        for drawing, branch in zip(self.drawings, found, strict=True):
            results.append((branch["v"], self._guided(drawing, branch)))
        if self.settings.cfg_renorm_type == "text_channel":
            return [guided for _, guided in results]
        return self._renormed(results)

    def _guided(self, drawing: Drawing, branch: dict[str, torch.Tensor]) -> torch.Tensor:
        settings, v = self.settings, branch["v"]
        u = branch.get("u", v)
        a = u + settings.cfg_text_scale * (v - u)
        if settings.cfg_renorm_type == "text_channel":
            a = a * _factor(v.norm(dim=-1, keepdim=True), a.norm(dim=-1, keepdim=True), settings.cfg_renorm_min)
        if settings.cfg_img_scale > 1:
            m = {"v": v, "u": u}.get(self._source(drawing), branch.get("m", v))
            a = m + settings.cfg_img_scale * (a - m)
        return a

    def _renormed(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        kind, least = self.settings.cfg_renorm_type, self.settings.cfg_renorm_min
        if kind == "channel":
            return [a * _factor(v.norm(dim=-1, keepdim=True), a.norm(dim=-1, keepdim=True), least) for v, a in pairs]
        if kind == "global":
            return [a * _factor(v.norm(), a.norm(), least) for v, a in pairs]
        whole_v, whole_a = (torch.cat(side).norm() for side in zip(*pairs, strict=True))
        return [a * _factor(whole_v, whole_a, least) for _, a in pairs]

    def _compute(
        self, x: Sequence[torch.Tensor], time: float, wanted: Sequence[dict[str, Context]]
    ) -> list[dict[str, torch.Tensor]]:
        """Plain velocities of the wanted branches, by one forward over those that are not predicted."""
        results: list[dict[str, torch.Tensor]] = [{} for _ in x]
        hidden: dict[tuple[int, str], torch.Tensor] = {}
        blocks: dict[tuple[int, str], Block] = {}
        when = torch.full((1,), time, device=self.model.device)
        for i, contexts in enumerate(wanted):
            embeds = None
            for name, context in contexts.items():
                state = self.states.setdefault((i, name), TaylorState()) if self.settings.taylorseer else None
                if state is not None and not state.must_compute():
                    hidden[i, name] = state.predict()
                    continue
                embeds = self.model.embed_latents(x[i], when, self.places[i]) if embeds is None else embeds
                blocks[i, name] = image_block(self.model, context, embeds, is_latent=True)
        if blocks:
            self._forward(blocks, hidden)
        for (i, name), rows in hidden.items():
            norm = self.model.decoder.norm_moe_gen
            results[i][name] = self.model.llm2vae(norm(rows)).float()
        return results

    def _forward(self, blocks: dict[tuple[int, str], Block], hidden: dict[tuple[int, str], torch.Tensor]) -> None:
        names = tuple(blocks)
        if names not in self.routings:
            self.routings[names] = route(self.model, list(blocks.values()))
        rows: Rows = forward(self.model, list(blocks.values()), self.routings[names])[0]
        counts = [len(block) - 2 for block in blocks.values()]
        for name, part in zip(names, rows.gen.split(counts), strict=True):
            hidden[name] = part
            if self.settings.taylorseer:
                self.states[name].record(part)


def _factor(plain: torch.Tensor, guided: torch.Tensor, least: float) -> torch.Tensor:
    return (plain / (guided + 1e-8)).clamp(min=least, max=1.0)


@torch.no_grad()
def draw(
    model: BagelModel,
    drawings: Sequence[Drawing],
    settings: DrawSettings,
    trace: Trace | None = None,
    *,
    skip: int = 0,
) -> list[torch.Tensor]:
    """Latent tokens (N, P) of every picture. Contexts are left as they were.

    Args:
        model: in evaluation mode.
        drawings: what to draw; sizes and contexts may differ, and pictures may share a context.
        settings: see :class:`DrawSettings`.
        trace: filled with every step if given.
        skip: updates left out at the beginning; ``noise`` is then what the drawing is at that time (see
            :meth:`DrawSettings.times`), as in SDEdit (Meng et al. 2022, arXiv:2108.01073).
    """
    painter = _Painter(model, drawings, settings)
    x = [drawing.noise.to(model.device, torch.float32) for drawing in drawings]
    times = settings.times()[skip:]
    for time, following in pairwise(times):
        v = painter.velocities(x, time)
        if trace is not None:
            trace.x.append(list(x))
            trace.v.append(v)
            trace.time.append(time)
        x = [now - speed * (time - following) for now, speed in zip(x, v, strict=True)]
    return x


def decode(model: BagelModel, tokens: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """(N, P) latent tokens -> (3, H, W) pixels, about [-1, 1]."""
    latents = unpatchify(tokens, rows, cols, model.config.latent_patch_size)
    return model.autoencoder.decode(latents[None])[0]
