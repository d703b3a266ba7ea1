"""Small random MGM models and the tokenizer of the golden set's copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bettersynth.core.sample import Conversation, ImageRef, Segment
from bettersynth.models.mgm import load
from bettersynth.models.mgm.config import MgmConfig
from bettersynth.models.mgm.model import MgmModel

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "data" / "mgm_a"


def random_tensors(config: MgmConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Values of a plausible size for every tensor of a model."""
    generator = torch.Generator().manual_seed(seed)
    state = load.build_empty(config).state_dict()
    return {
        name: torch.randn(tensor.shape, generator=generator) * (0.3 if tensor.ndim == 1 else tensor[0].numel() ** -0.5)
        for name, tensor in state.items()
    }


@pytest.fixture(scope="session")
def tiny_config() -> MgmConfig:
    return load.preset_config("mgm_tiny").with_fields(vocab_size=640)


@pytest.fixture
def tiny_model(tiny_config) -> MgmModel:
    model = load.build(tiny_config, random_tensors(tiny_config), dtype=torch.float32)
    model.tokenizer_folder = str(GOLDEN / "checkpoint")
    return model


@pytest.fixture(scope="session")
def golden_copy() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def picture():
    """A random picture as the processor hands it over: uint8 (S, S, 3)."""

    def make(size: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)

    return make


@pytest.fixture(scope="session")
def conversation():
    """A conversation from (role, text) turns; each ``<image>`` takes the next of ``images``."""

    def make(turns: list[tuple[str, str]], images: tuple[str, ...] = (), key: str = "k") -> Conversation:
        left = list(images)
        segments = []
        for number, (role, value) in enumerate(turns):
            for index, piece in enumerate(value.split("<image>")):
                if index:
                    ref = ImageRef(left.pop(0)) if left else None
                    segments.append(Segment("image", role, image=ref, turn=number))
                if piece or "<image>" not in value:
                    segments.append(Segment("text", role, text=piece, is_target=role == "gpt", turn=number))
        return Conversation(key, tuple(segments))

    return make
