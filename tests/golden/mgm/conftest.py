"""The golden set of a tiny Mini-Gemini, run once by the original code; another set of the same layout must pass too."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bettersynth.models.family import Batch, Example, load_family
from bettersynth.models.mgm.collate import collate
from bettersynth.models.mgm.model import ImageFeatures, MgmModel

_ROOT = Path(__file__).resolve().parents[3]


def _find_set() -> Path | None:
    given = os.environ.get("BETTERSYNTH_GOLDEN_MGM")
    beside, copy = _ROOT.parent / "shared" / "golden" / "mgm_a", _ROOT / "tests" / "golden" / "data" / "mgm_a"
    return next((path for path in ([Path(given)] if given else [beside, copy]) if path.is_dir()), None)


@dataclass(frozen=True)
class GoldenSet:
    """Files and tensors of one set; a test that asks for a part the set lacks is skipped by that part's name."""

    folder: Path
    tensors: dict[str, torch.Tensor]

    def path(self, name: str) -> Path:
        if not (self.folder / name).exists():
            pytest.skip(f"the golden set {self.folder} has no {name}")
        return self.folder / name

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.tensors:
            pytest.skip(f"the golden set {self.folder} has no tensor {name}")
        return self.tensors[name]

    def examples(self) -> list[Example]:
        """The batch of the set, with the original collator's padding taken off."""
        rows = []
        for index, mask in enumerate(self["attention_mask"].bool()):
            ids, labels = self["input_ids"][index][mask].tolist(), self["labels"][index][mask].tolist()
            rows.append(Example(str(index), ids, labels, (), len(ids)))
        return rows

    def has_image(self) -> list[int]:
        """Indexes of the samples that hold an image marker."""
        return [index for index, example in enumerate(self.examples()) if -200 in example.input_ids]


@pytest.fixture(scope="session")
def golden() -> GoldenSet:
    folder = _find_set()
    if folder is None:
        pytest.skip("no golden set of MGM: set BETTERSYNTH_GOLDEN_MGM")
    file = folder / "golden.safetensors"
    return GoldenSet(folder, load_file(file) if file.is_file() else {})


@pytest.fixture(scope="session")
def model(golden: GoldenSet) -> MgmModel:
    """The set's full checkpoint; its towers lie in folders named by its config, beside the checkpoint."""
    loaded = load_family("mgm").load_checkpoint(golden.path("checkpoint"), dtype=torch.float32)
    assert isinstance(loaded, MgmModel)
    return loaded.requires_grad_(False)


@pytest.fixture
def trained(golden: GoldenSet) -> MgmModel:
    """A fresh copy for tests that change parameters or gradients."""
    loaded = load_family("mgm").load_checkpoint(golden.path("checkpoint"), dtype=torch.float32)
    assert isinstance(loaded, MgmModel)
    return loaded


@pytest.fixture(scope="session")
def features(golden: GoldenSet, model: MgmModel) -> ImageFeatures:
    return model.encode_views(golden["images"].unsqueeze(1), golden["images_aux"])


@pytest.fixture(scope="session")
def batch(golden: GoldenSet, model: MgmModel) -> Batch:
    return collate(golden.examples(), [], tokens_per_image=model.config.tokens_per_image)


@pytest.fixture(scope="session")
def image_tokens(golden: GoldenSet, features: ImageFeatures) -> torch.Tensor:
    """Tokens of the samples that have a picture, in order."""
    return features.tokens[golden.has_image()]


def close(got: torch.Tensor, wanted: torch.Tensor, tolerance: float = 2e-5) -> None:
    """Fail unless shapes agree and no element differs by more than ``tolerance``."""
    assert got.shape == wanted.shape
    worst = (got - wanted).abs().max().item()
    assert worst <= tolerance, f"largest difference {worst:.2e} > {tolerance:.0e}"


@pytest.fixture(scope="session")
def assert_close() -> Any:
    return close
