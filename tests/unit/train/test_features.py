"""The feature cache: same bits as without it, shared, bounded, and proof against damage."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bettersynth.config.train import StageConfig, stage_config
from bettersynth.core.artifact import Artifact
from bettersynth.models.family import Example
from bettersynth.models.mgm.model import MgmModel
from bettersynth.train.callbacks import Callback, read_log
from bettersynth.train.features import SETUP_FILE, FeatureSource, FeatureStore, Pictures
from bettersynth.train.stages import run_stage

ZOO = Path(__file__).parents[2] / "golden" / "data" / "mgm_a" / "model_zoo"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 rows of noise pictures, two of them the same picture, one row without any; the last step has one picture."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for number in range(20):
        image = None if number == 7 else f"{0 if number == 11 else number}.png"
        if image and not (folder / image).exists():
            Image.fromarray(rng.integers(0, 256, (31, 40, 3), dtype=np.uint8)).save(folder / image)
        turns = [
            {"from": "human", "value": ("<image>\n" if image else "") + "what is this?"},
            {"from": "gpt", "value": "noise " * random.Random(number).randrange(1, 6)},
        ]
        rows.append({"id": str(number), **({"image": image} if image else {}), "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder


def configure(data: Path, **changes: Any) -> StageConfig:
    settings = {
        "stage": 1,
        "data": data / "data.json",
        "model_zoo": ZOO,
        "lr": 0.02,
        "epochs": 2,
        "seed": 5,
        "per_device_batch_size": 8,
        "image_size_aux": 128,
        "max_length": 160,
        "image_aspect_ratio": "pad",
        **changes,
    }
    return stage_config(settings)


def train(config: StageConfig, out: Path) -> tuple[Artifact, list[float]]:
    artifact = run_stage(config, out=out, progress=Callback())
    return artifact, [line["loss"] for line in read_log(out / "train_log.jsonl")]


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.glob("*/*/*"))


def test_same_bits_cold_and_warm_and_the_towers_rest(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, losses = train(configure(data), tmp_path / "plain")
    cache = tmp_path / "cache"
    cold, cold_losses = train(configure(data, feature_cache=cache), tmp_path / "cold")
    assert (cold.facts["weights_digest"], cold_losses) == (plain.facts["weights_digest"], losses)
    assert cold.facts["identity"] == plain.facts["identity"]
    (setup,) = cache.glob(f"*/{SETUP_FILE}")
    if not json.loads(setup.read_text())["is_batch_invariant"]:
        pytest.skip("this machine rounds by batch")
    assert len(files(cache)) == 18

    def stopped(*args: Any) -> Any:
        raise AssertionError("the towers ran")

    monkeypatch.setattr(MgmModel, "tower_maps", stopped)
    warm, warm_losses = train(configure(data, feature_cache=cache, workers=0), tmp_path / "warm")
    assert (warm.facts["weights_digest"], warm_losses) == (plain.facts["weights_digest"], losses)


def test_a_damaged_entry_is_made_again(data: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    config = configure(data, feature_cache=cache, epochs=1)
    first, _ = train(config, tmp_path / "a")
    found = files(cache)
    if not found:
        pytest.skip("this machine rounds by batch")
    whole = found[0].read_bytes()
    found[0].write_bytes(whole[:-8] + b"12345678")
    found[1].write_bytes(whole[:10])
    second, _ = train(config, tmp_path / "b")
    assert second.facts["weights_digest"] == first.facts["weights_digest"]
    assert found[0].read_bytes() == whole


def test_other_towers_and_sizes_have_folders_of_their_own(tmp_path: Path) -> None:
    one, two = (FeatureStore(tmp_path, {"towers": name}, 10**6) for name in "ab")
    for store in (one, two):
        store.record_check(True)
    one.put("ab" * 16, {"x": torch.ones(2)})
    assert two.get("ab" * 16) is None
    assert FeatureStore(tmp_path, {"towers": "a"}, 10**6).get("ab" * 16) is not None


def test_the_limit_holds_over_all_setups_and_leaves_no_rest(tmp_path: Path) -> None:
    one = FeatureStore(tmp_path, {"towers": "a"}, 1000)
    one.record_check(True)
    for number in range(5):
        one.put(f"{number:032d}", {"x": torch.zeros(100)})
    assert len(files(tmp_path)) == 2
    other = FeatureStore(tmp_path, {"towers": "b"}, 1000)
    other.put("0" * 32, {"x": torch.zeros(100)})
    assert len(files(tmp_path)) == 2


def _source(tmp_path: Path, compute: Any) -> FeatureSource:
    return FeatureSource(FeatureStore(tmp_path, {"towers": "a"}, 10**6), compute, tmp_path)


def test_nothing_is_shared_where_a_batch_decides_the_bits(tmp_path: Path) -> None:
    def by_batch(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"x": pixels.float().mean((1, 2)) + len(pixels) * 1e-6}

    source = _source(tmp_path, by_batch)
    pixels = {f"{n:032d}": np.full((2, 2, 3), n, dtype=np.uint8) for n in range(6)}
    pictures = Pictures(tuple(pixels), {}, pixels)
    for _ in range(2):
        found = source.features(pictures, torch.device("cpu"))
        assert torch.equal(found["x"], by_batch(torch.stack([torch.from_numpy(p) for p in pixels.values()]))["x"])
    assert source.store.is_invariant is False
    assert not files(tmp_path)
    assert FeatureStore(tmp_path, {"towers": "a"}, 10**6).is_invariant is False


def test_a_small_first_batch_decides_nothing_and_one_picture_never_runs_alone(tmp_path: Path) -> None:
    sizes: list[int] = []

    def compute(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(pixels))
        return {"x": pixels.float().mean((1, 2))}

    source = _source(tmp_path, compute)
    pixels = {f"{n:032d}": np.full((2, 2, 3), n, dtype=np.uint8) for n in range(5)}
    keys = tuple(pixels)
    source.features(Pictures(keys[:2], {}, pixels), torch.device("cpu"))
    assert source.store.is_invariant is None
    source.features(Pictures(keys[:4], {}, pixels), torch.device("cpu"))
    assert source.store.is_invariant is True
    sizes.clear()
    known = {key: source.store.get(key) for key in keys[:4]}
    found = source.features(Pictures((keys[4], *keys), known, {keys[4]: pixels[keys[4]]}), torch.device("cpu"))  # type: ignore[arg-type]
    assert sizes == [2]
    assert found["x"][:, 0].tolist() == [4, 0, 1, 2, 3, 4]
    assert len(files(tmp_path)) == 5


def test_a_missing_picture_is_a_bad_sample(tmp_path: Path) -> None:
    from bettersynth.core.errors import DataError
    from bettersynth.core.sample import ImageRef

    source = _source(tmp_path, lambda pixels: {})
    example = Example("k", [1], [1], (ImageRef("gone.png"),), 1)
    with pytest.raises(DataError, match="cannot read the picture"):
        source.look_up(example, lambda example: [])


def test_off_is_off() -> None:
    assert (
        stage_config(
            {"stage": 1, "data": "d", "model_zoo": "z", "lr": 1, "per_device_batch_size": 1, "feature_cache": False}
        ).feature_cache
        is None
    )
