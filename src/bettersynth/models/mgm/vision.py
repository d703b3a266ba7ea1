"""The two vision towers of MGM: a CLIP ViT for the low-resolution view and a ConvNeXt trunk for the high one.

Shape letters: B images, C channels, H W pixels of a map, N low-resolution tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.media.resize import CLIP_MEAN, CLIP_STD
from bettersynth.models.weights import Tensors, check_names, load_tensors

OPEN_CLIP_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
OPEN_CLIP_CONFIG = "open_clip_config.json"
_TRUNK = "visual.trunk."
_EPS = 1e-6  # timm's LayerNorm in ConvNeXt; nn.LayerNorm's own default is 1e-5


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, H, W) map."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalise every position over its channels; shape is kept."""
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        return F.layer_norm(x_BHWC, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class _Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, 4x MLP with exact GELU, per-channel scale ``gamma``, residual.

    Source: Liu et al. 2022 (ConvNeXt), figure 4; parameter names of timm's ``convnext``.
    """

    def __init__(self, dim: int, *, gamma_init: float = 1e-6) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), gamma_init))
        self.conv_dw = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = _Mlp(dim)
        self.drop_rate = 0.0

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Same shape in and out. In training mode each picture skips the block with probability ``drop_rate``, and what
        is kept is scaled up (Huang et al. 2016, stochastic depth, in the form of timm)."""
        y_BHWC = self.conv_dw(x_BCHW).permute(0, 2, 3, 1)  # a free view: maps are kept in channels-last memory
        y_BHWC = self.mlp(self.norm(y_BHWC)) * self.gamma
        if self.training and self.drop_rate:
            kept = torch.rand(len(y_BHWC), 1, 1, 1, device=y_BHWC.device) >= self.drop_rate
            y_BHWC = y_BHWC * (kept / (1 - self.drop_rate)).to(y_BHWC.dtype)
        return x_BCHW + y_BHWC.permute(0, 3, 1, 2)


class ConvNeXtStage(nn.Module):
    """An optional 2x downsampling followed by blocks of one width."""

    def __init__(self, dim_in: int, dim: int, depth: int, *, gamma_init: float = 1e-6) -> None:
        super().__init__()
        self.downsample = (
            nn.Identity()
            if dim_in == dim
            else nn.Sequential(ChannelLayerNorm(dim_in, eps=_EPS), nn.Conv2d(dim_in, dim, kernel_size=2, stride=2))
        )
        self.blocks = nn.Sequential(*(ConvNeXtBlock(dim, gamma_init=gamma_init) for _ in range(depth)))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C_in, H, W) -> (B, C, H/2, W/2), or the same size in the first stage."""
        return self.blocks(self.downsample(x_BCHW))


class ConvNeXtTrunk(nn.Module):
    """Stem and stages of a ConvNeXt; no norm after a stage, no head. Every stage's raw output is returned.

    Args:
        depths: blocks per stage, e.g. (3, 3, 27, 3).
        dims: channels per stage, strictly different from stage to stage, e.g. (192, 384, 768, 1536).
        gamma_init: start value of the per-channel residual scale (matters only for training from scratch).
    """

    def __init__(self, depths: Sequence[int], dims: Sequence[int], *, gamma_init: float = 1e-6) -> None:
        super().__init__()
        self.depths, self.dims = tuple(depths), tuple(dims)
        self.vision_stem = nn.Sequential(
            nn.Conv2d(3, self.dims[0], kernel_size=4, stride=4), ChannelLayerNorm(self.dims[0], eps=_EPS)
        )
        before = (self.dims[0], *self.dims[:-1])
        self.vision_stages = nn.ModuleList(
            ConvNeXtStage(dim_in, dim, depth, gamma_init=gamma_init)
            for dim_in, dim, depth in zip(before, self.dims, self.depths, strict=True)
        )

    @property
    def blocks(self) -> list[ConvNeXtBlock]:
        """All residual blocks, in order."""
        return [block for stage in self.vision_stages for block in stage.blocks]

    @property
    def stochastic_depth(self) -> float:
        """Rate of the last block; 0 when no block is ever left out."""
        return self.blocks[-1].drop_rate

    def set_stochastic_depth(self, rate: float) -> None:
        """Leave out blocks in training mode, at rates that rise evenly from 0 (first block) to ``rate`` (last one)."""
        blocks = self.blocks
        for number, block in enumerate(blocks):
            block.drop_rate = rate * number / max(1, len(blocks) - 1)

    def forward(self, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) normalised pixels -> maps of H/4, H/8, H/16, H/32 with ``dims`` channels."""
        x_BCHW = self.vision_stem(x_BCHW.contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in self.vision_stages:
            x_BCHW = stage(x_BCHW)
            maps.append(x_BCHW)
        return maps


def trunk_from_open_clip(tensors: Tensors, where: object = "") -> ConvNeXtTrunk:
    """Build a trunk from the tensors of an open_clip file; text tower, heads and anything else are ignored.

    Depths and widths are read from the tensors, never from the folder's name.

    Raises:
        DataError: there is no ConvNeXt trunk in the tensors, or parts of it are missing.
    """
    state: Tensors = {}
    for name, tensor in tensors.items():
        if name.startswith((_TRUNK + "stem.", _TRUNK + "stages.")):
            state["vision_" + name.removeprefix(_TRUNK)] = tensor
    return trunk_from_state(state, where)


def trunk_shape(state: Tensors, where: object = "") -> tuple[list[int], list[int]]:
    """(depths, dims) of a trunk read from tensors named ``vision_stages.S.blocks.J.*``."""
    blocks: dict[int, set[int]] = {}
    for name in state:
        parts = name.split(".")
        if name.startswith("vision_stages.") and parts[2] == "blocks":
            blocks.setdefault(int(parts[1]), set()).add(int(parts[3]))
    if not blocks or sorted(blocks) != list(range(len(blocks))):
        raise DataError(
            t("no ConvNeXt trunk in these weights"),
            where=str(where),
            expected="visual.trunk.stem.*, visual.trunk.stages.*",
        )
    depths = [len(blocks[stage]) for stage in sorted(blocks)]
    gammas = [f"vision_stages.{stage}.blocks.0.gamma" for stage in sorted(blocks)]
    check_names(state, gammas, where)
    return depths, [state[name].numel() for name in gammas]


def trunk_from_state(state: Tensors, where: object = "") -> ConvNeXtTrunk:
    """A trunk with the given tensors (named ``vision_stem.*`` and ``vision_stages.*``), all of which must fit."""
    depths, dims = trunk_shape(state, where)
    with torch.device("meta"):
        trunk = ConvNeXtTrunk(depths, dims)
    check_names(state, trunk.state_dict(), where)
    trunk.load_state_dict(state, strict=True, assign=True)
    return trunk


def load_convnext_trunk(folder: Path) -> ConvNeXtTrunk:
    """Read the high-resolution tower from an open_clip folder (``.safetensors`` or ``.bin``).

    Raises:
        DataError: weights are missing or damaged, or the folder's mean and deviation are not CLIP's.
    """
    check_open_clip_config(folder)
    for name in OPEN_CLIP_FILES:
        if (folder / name).is_file():
            return trunk_from_open_clip(load_tensors(folder / name), folder / name)
    raise DataError(
        t("no weights found") if folder.is_dir() else t("model folder not found"),
        where=str(folder),
        expected=t("one of: {names}", names=", ".join(OPEN_CLIP_FILES)),
    )


def check_open_clip_config(folder: Path) -> None:
    """Refuse an open_clip folder whose pixels are normalised otherwise than CLIP's, as both towers share them."""
    path = folder / OPEN_CLIP_CONFIG
    if not path.is_file():
        return
    try:
        preprocess = json.loads(path.read_text(encoding="utf-8")).get("preprocess_cfg", {})
    except (ValueError, AttributeError) as error:
        raise DataError(t("not readable JSON"), where=str(path), got=error) from error
    for key, wanted in (("mean", CLIP_MEAN), ("std", CLIP_STD)):
        got = preprocess.get(key, wanted)
        if any(abs(a - b) > 1e-6 for a, b in zip(got, wanted, strict=True)):
            raise DataError(
                t("the high-resolution tower must share CLIP's pixel {key}", key=key),
                where=str(path),
                got=got,
                expected=str(list(wanted)),
            )


def trunk_to_open_clip(trunk: ConvNeXtTrunk) -> Tensors:
    """The trunk's tensors under the names of an open_clip file (``visual.trunk.*``)."""
    return {_TRUNK + name.removeprefix("vision_"): tensor for name, tensor in trunk.state_dict().items()}
