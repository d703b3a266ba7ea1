from __future__ import annotations

import pytest

from bettersynth.models.bagel.config import BagelConfig, LlmConfig, SpecialTokens, VaeConfig, VitConfig
from bettersynth.models.bagel.convert import build_fresh

_TINY = BagelConfig(
    llm=LlmConfig(24, 16, 24, 2, 4, 2),
    vit=VitConfig(16, 16, 2, 2, image_size=56),
    vae=VaeConfig(ch=32, ch_mult=(1, 1), num_res_blocks=1, z_channels=4),
    special=SpecialTokens(20, 21, 22, 23),
    max_latent_size=6,
    vit_max_num_patch_per_side=4,
)


@pytest.fixture(scope="session")
def tiny():
    return _TINY


@pytest.fixture
def tiny_model(tiny):
    model = build_fresh(tiny, seed=3)
    model.llm2vae.weight.data.normal_(std=0.3)
    return model
