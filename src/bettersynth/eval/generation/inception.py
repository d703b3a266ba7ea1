"""The Inception-v3 of FID: TensorFlow's 2015 network, with the tensor names of its public PyTorch conversions.

Reads ``weights-inception-2015-12-05-*.pth`` (torch-fidelity) and ``pt_inception-2015-12-05-*.pth`` (pytorch-fid), which
hold the same tensors, and the TorchScript file ``inception-2015-12-05.pt`` that clean-fid uses.

Shape letters: B pictures, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

INPUT_PX = 299
FEATURES = 2048
_CLASSES = 1008
RESIZES = ("tf", "clean")
"""``tf``: bilinear as TensorFlow 1 does it, without half-pixel centres (torch-fidelity); ``clean``: antialiased bicubic
as Pillow does it, in floats (clean-fid)."""

_Kernel = int | tuple[int, int]
_Branch = tuple[tuple[str, int, _Kernel], ...]


class _Conv(nn.Module):
    """Convolution without bias, batch norm (eps 0.001), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: _Kernel, *, stride: int = 1, is_padded: bool = True) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if is_padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Parallel chains of convolutions whose outputs are put side by side.

    Args:
        inputs: channels that come in.
        branches: chains; a step is (name, channels, kernel). A last step with two names forks.
        pool: channels after the pooling branch; 0: pooled alone.
        pooling: ``average`` (borders not counted), ``max``, or ``max2`` (stride 2, and so are the chains' ends).
    """

    def __init__(self, inputs: int, branches: Sequence[_Branch], pool: int, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        self.chains: list[list[list[str]]] = []
        for steps in branches:
            channels, chain = inputs, []
            for number, (names, outputs, kernel) in enumerate(steps):
                is_end = pooling == "max2" and number == len(steps) - 1
                kernels = [kernel] if "|" not in names else [(1, 3), (3, 1)]
                for name, size in zip(names.split("|"), kernels, strict=True):
                    stride = 2 if is_end else 1
                    self.add_module(name, _Conv(channels, outputs, size, stride=stride, is_padded=not is_end))
                chain.append(names.split("|"))
                channels = outputs
            self.chains.append(chain)
        self.branch_pool = _Conv(inputs, pool, 1) if pool else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = []
        for chain in self.chains:
            y = x
            for names in chain:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            mixed.append(y)
        if self.pooling == "average":
            pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        elif self.pooling == "max":
            pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        else:
            pooled = F.max_pool2d(x, 3, stride=2)
        mixed.append(self.branch_pool(pooled) if self.branch_pool is not None else pooled)
        return torch.cat(mixed, 1)


def _a(inputs: int, pool: int) -> _Mixed:
    fives: _Branch = (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5))
    threes: _Branch = (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    return _Mixed(inputs, [(("branch1x1", 64, 1),), fives, threes], pool, "average")


def _b(inputs: int) -> _Mixed:
    threes: _Branch = (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))
    return _Mixed(inputs, [(("branch3x3", 384, 3),), threes], 0, "max2")


def _c(inputs: int, width: int) -> _Mixed:
    wide, tall = (1, 7), (7, 1)
    sevens: _Branch = (("branch7x7_1", width, 1), ("branch7x7_2", width, wide), ("branch7x7_3", 192, tall))
    twice: _Branch = (
        *(("branch7x7dbl_1", width, 1), ("branch7x7dbl_2", width, tall), ("branch7x7dbl_3", width, wide)),
        *(("branch7x7dbl_4", width, tall), ("branch7x7dbl_5", 192, wide)),
    )
    return _Mixed(inputs, [(("branch1x1", 192, 1),), sevens, twice], 192, "average")


def _d(inputs: int) -> _Mixed:
    threes: _Branch = (("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3))
    sevens: _Branch = (
        *(("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1))),
        ("branch7x7x3_4", 192, 3),
    )
    return _Mixed(inputs, [threes, sevens], 0, "max2")


def _e(inputs: int, pooling: str) -> _Mixed:
    threes: _Branch = (("branch3x3_1", 384, 1), ("branch3x3_2a|branch3x3_2b", 384, 3))
    twice: _Branch = (
        *(("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)),
        ("branch3x3dbl_3a|branch3x3dbl_3b", 384, 3),
    )
    return _Mixed(inputs, [(("branch1x1", 320, 1),), threes, twice], 192, pooling)


class FidInception(nn.Module):
    """Inception-v3 as FID uses it. The last block pools by maximum, as TensorFlow's file does.

    Source: Szegedy et al. 2015, arXiv:1512.00567.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2, is_padded=False)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, is_padded=False)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, is_padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c = _c(768, 128), _c(768, 160)
        self.Mixed_6d, self.Mixed_6e = _c(768, 160), _c(768, 192)
        self.Mixed_7a = _d(768)
        self.Mixed_7b, self.Mixed_7c = _e(1280, "average"), _e(2048, "max")
        self.fc = nn.Linear(FEATURES, _CLASSES)

    def forward(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, 3, 299, 299) in 0 ... 255 -> (B, 2048)."""
        x = (x_B3HW - 128) / 128
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, stride=2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


class _Scripted(nn.Module):
    """The TorchScript file: its layers without its own resizing, as clean-fid calls them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.base = torch.jit.load(str(path), map_location="cpu")

    def forward(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.base.layers.forward((x_B3HW - 128) / 128)
        return features.view(len(x_B3HW), -1)


def load_inception(path: Path) -> nn.Module:
    """The network from a weight file.

    Raises:
        DataError: no such file, or other tensors than expected.
    """
    if not path.is_file():
        raise DataError(
            t("no Inception weights here"),
            where=str(path),
            expected="weights-inception-2015-12-05-6726825d.pth | pt_inception-2015-12-05-6726825d.pth | "
            "inception-2015-12-05.pt",
            hint=t("they are never downloaded: fetch the file that torch-fidelity or clean-fid uses and give its path"),
        )
    if path.suffix == ".pt":
        try:
            return _Scripted(path).eval()
        except RuntimeError as error:
            raise DataError(t("cannot load the model"), where=str(path), got=str(error).splitlines()[0]) from error
    from bettersynth.models.weights import load_tensors

    tensors = {name: tensor for name, tensor in load_tensors(path).items() if not name.startswith("AuxLogits.")}
    with torch.device("meta"):
        model = FidInception()
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors |= {name: torch.zeros((), dtype=torch.int64) for name in wanted if name.endswith("num_batches_tracked")}
    wrong = [name for name, shape in wanted.items() if name not in tensors or tuple(tensors[name].shape) != shape]
    if wrong:
        raise DataError(
            t("the weights do not fit the config ({n} tensors)", n=len(wrong)),
            where=str(path),
            got=", ".join(wrong[:5]),
        )
    model.load_state_dict({name: tensors[name] for name in wanted}, assign=True)
    return model.eval().requires_grad_(False)


def resize_tf(pixels_3HW: torch.Tensor) -> torch.Tensor:
    """(3, H, W) -> (3, 299, 299): source place = target place * (old / new), neighbours mixed linearly."""
    for dim in (1, 2):
        old = pixels_3HW.shape[dim]
        places = torch.arange(INPUT_PX, dtype=torch.float32) * (old / INPUT_PX)
        low = places.floor().long().clamp(max=old - 1)
        high = (low + 1).clamp(max=old - 1)
        part = (places - low).view([-1 if axis == dim else 1 for axis in range(3)])
        a, b = pixels_3HW.index_select(dim, low), pixels_3HW.index_select(dim, high)
        pixels_3HW = a + (b - a) * part
    return pixels_3HW


def resize_clean(image: Image.Image) -> torch.Tensor:
    """RGB picture -> (3, 299, 299) in 0 ... 255: antialiased bicubic channel by channel in floats, clipped."""
    array = np.asarray(image, dtype=np.float32)
    channels: list[Any] = []
    for channel in range(3):
        resized = Image.fromarray(array[:, :, channel]).resize((INPUT_PX, INPUT_PX), Image.Resampling.BICUBIC)
        channels.append(np.asarray(resized, dtype=np.float32).clip(0, 255))
    return torch.from_numpy(np.stack(channels))


def prepare(image: Image.Image, resize: str) -> torch.Tensor:
    """(3, 299, 299) in 0 ... 255 of any picture; see ``RESIZES``."""
    image = image.convert("RGB")
    if resize == "clean":
        return resize_clean(image)
    return resize_tf(torch.from_numpy(np.asarray(image, dtype=np.float32).copy()).permute(2, 0, 1))
