"""Records what torch-fidelity computes: Inception features of drawn weights, FID and KID of drawn features.

    python tools/record_torch_fidelity.py OUT.json     with torch-fidelity installed (its own environment will do)

`tests/unit/eval/generation` compares ours with the recorded numbers; weights and inputs are drawn again there.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SIZES = ((96, 96), (64, 80), (320, 300))
SHOWN = slice(0, 2048, 128)


def draw_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A tensor for each name, drawn from the name alone."""
    found = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if len(shape) >= 2:
            found[name] = rng.standard_normal(shape, dtype=np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        elif name.endswith("running_mean"):
            found[name] = rng.normal(0, 0.1, shape).astype(np.float32)
        elif shape:
            found[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return found


def draw_picture(size: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width, 3): smooth waves and a little noise."""
    height, width = size
    rng = np.random.default_rng(height * 1000 + width)
    rows, cols = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / (7 + c)) * 60 + np.cos(cols / (11 - c)) * 60 + 128 for c in range(3)]
    return np.clip(np.stack(waves, -1) + rng.integers(-8, 9, (height, width, 3)), 0, 255).astype(np.uint8)


def draw_features(seed: int, rows: int, columns: int, shift: float) -> np.ndarray:
    """Correlated features float32 (rows, columns)."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(columns, columns)) / columns**0.5
    return (rng.normal(size=(rows, columns)) @ mix + shift).astype(np.float32)


FEATURE_SETS = ((1, 200, 24, 0.0), (2, 160, 24, 0.3))


def main(out: Path) -> None:
    """Run torch-fidelity and write the numbers."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    from bettersynth.eval.generation.inception import FidInception

    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in FidInception().state_dict().items()}
    weights: dict[str, Any] = {name: torch.from_numpy(array) for name, array in draw_weights(shapes).items()}
    weights |= {name: torch.zeros((), dtype=torch.int64) for name in shapes if name not in weights}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(weights, Path(folder) / "w.pth")
        theirs = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=f"{folder}/w.pth")
    features = {}
    for size in SIZES:
        pixels = torch.from_numpy(draw_picture(size)).permute(2, 0, 1)[None]
        features["x".join(map(str, size))] = theirs(pixels)[0][0, SHOWN].tolist()
    one, two = (torch.from_numpy(draw_features(*kind)) for kind in FEATURE_SETS)
    fid = fid_statistics_to_metric(fid_features_to_statistics(one), fid_features_to_statistics(two), False)
    size = len(two)
    kid = kid_features_to_metric(one[:size], two, kid_subsets=1, kid_subset_size=size, verbose=False)
    numbers = {"inception": features, **{key: float(value) for key, value in {**fid, **kid}.items()}}
    out.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
