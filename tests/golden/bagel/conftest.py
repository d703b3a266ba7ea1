"""Golden numbers of a tiny BAGEL, made with the original code on a CPU (float32). See the set's own README.

The set is looked for in ``BETTERSYNTH_GOLDEN_BAGEL``, else in ``../shared/golden/bagel_a``, else in the copy kept here.
Another set of the same layout, with other sizes and settings, passes as well.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bettersynth.models.bagel.config import BagelConfig, load_config
from bettersynth.models.bagel.convert import load_checkpoint
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.packing import MODES

_ROOT = Path(__file__).resolve().parents[3]


def _find_set() -> Path | None:
    given = os.environ.get("BETTERSYNTH_GOLDEN_BAGEL")
    beside, copy = _ROOT.parent / "shared" / "golden" / "bagel_a", _ROOT / "tests" / "golden" / "data" / "bagel_a"
    return next((path for path in ([Path(given)] if given else [beside, copy]) if path.is_dir()), None)


@dataclass(frozen=True)
class GoldenSet:
    """Files and tensors of one set; a test that asks for a part the set lacks is skipped by that part's name."""

    folder: Path
    loaded: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        if not (self.folder / name).exists():
            pytest.skip(f"the golden set {self.folder} has no {name}")
        return self.folder / name

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        if name not in self.loaded:
            self.loaded[name] = load_file(self.path(f"{name}.safetensors"))
        return self.loaded[name]

    def tensor(self, file: str, name: str) -> torch.Tensor:
        tensors = self.tensors(file)
        if name not in tensors:
            pytest.skip(f"{file}.safetensors of the golden set {self.folder} has no tensor {name}")
        return tensors[name]

    @cached_property
    def config(self) -> BagelConfig:
        self.path("llm_config.json"), self.path("vit_config.json")
        return load_config(self.folder)


@pytest.fixture(scope="session")
def golden() -> GoldenSet:
    folder = _find_set()
    if folder is None:
        pytest.skip("no golden set of BAGEL: set BETTERSYNTH_GOLDEN_BAGEL")
    return GoldenSet(folder)


def close(got: torch.Tensor, wanted: torch.Tensor, atol: float = 1e-4, rtol: float = 1e-4) -> None:
    """Fail unless shapes agree and every difference is at most ``atol + rtol * |wanted|``."""
    assert got.shape == wanted.shape, f"{tuple(got.shape)} instead of {tuple(wanted.shape)}"
    excess = (got.detach().float() - wanted.float()).abs()
    assert (excess <= atol + rtol * wanted.float().abs()).all(), f"largest difference {excess.max().item():.2e}"


@pytest.fixture(scope="session")
def assert_close() -> Any:
    return close


@pytest.fixture(scope="session")
def model(golden: GoldenSet) -> BagelModel:
    """The set's model with its autoencoder, without gradients."""
    golden.path("ema.safetensors"), golden.path("ae.safetensors")
    return load_checkpoint(golden.folder, dtype=torch.float32).requires_grad_(False)


@pytest.fixture
def trained(golden: GoldenSet) -> BagelModel:
    """A fresh copy for tests that need gradients."""
    return load_checkpoint(golden.folder, dtype=torch.float32)


@pytest.fixture(scope="session")
def batch(golden: GoldenSet) -> dict[str, torch.Tensor]:
    modes = [MODES.index(mode) for mode in golden.json("train_meta.json")["attn_modes"]]
    return {**golden.tensors("train_batch"), "attn_modes": torch.tensor(modes)}
