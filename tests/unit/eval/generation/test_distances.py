"""FID, KID and CMMD against torch-fidelity's recorded numbers, closed forms and loops; Inception and its files."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.eval.generation.distances import Moments, cmmd, fid, kid, polynomial_mmd
from bettersynth.eval.generation.features import (
    InceptionFeatures,
    folder_features,
    load_extractor,
    picture_files,
)
from bettersynth.eval.generation.inception import FidInception, load_inception, prepare, resize_clean, resize_tf

HERE = Path(__file__).parent


def _recorder():
    path = HERE.parents[3] / "tools" / "record_torch_fidelity.py"
    spec = importlib.util.spec_from_file_location("record_torch_fidelity", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORDER = _recorder()
THEIRS = json.loads((HERE / "torch_fidelity_0_4_0.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sets():
    return [RECORDER.draw_features(*kind).astype(np.float64) for kind in RECORDER.FEATURE_SETS]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in FidInception().state_dict().items()}
    drawn = {name: torch.from_numpy(array) for name, array in RECORDER.draw_weights(shapes).items()}
    path = tmp_path_factory.mktemp("inception") / "weights-inception.pth"
    torch.save(drawn, path)
    return path


# --- distances ----------------------------------------------------------------------------------------------------


def test_fid_equals_torch_fidelity_and_the_matrix_root(sets):
    one, two = (Moments.of(x) for x in sets)
    ours = fid(one, two)
    assert ours == pytest.approx(THEIRS["frechet_inception_distance"], rel=1e-5)
    root = sqrtm(one.covariance @ two.covariance).real
    plain = ((one.mean - two.mean) ** 2).sum() + np.trace(one.covariance + two.covariance - 2 * root)
    assert ours == pytest.approx(plain, rel=1e-8) and fid(two, one) == pytest.approx(ours, rel=1e-9)


def test_fid_of_known_gaussians():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 1))
    x = (x - x.mean()) / x.std(ddof=1)
    assert fid(Moments.of(x), Moments.of(3 * x + 2)) == pytest.approx(2**2 + (3 - 1) ** 2)
    assert fid(Moments.of(x), Moments.of(x)) == pytest.approx(0.0, abs=1e-9)
    few = rng.normal(size=(5, 64))  # fewer pictures than features: the covariance has no inverse
    assert fid(Moments.of(few), Moments.of(few + 1)) == pytest.approx(64.0, rel=1e-5)


def test_kid_equals_torch_fidelity_and_a_plain_loop(sets):
    one, two = sets
    size = len(two)
    assert polynomial_mmd(one[:size], two) == pytest.approx(THEIRS["kernel_inception_distance_mean"], rel=1e-5)
    a, b = one[:6], two[:6]

    def k(u, v):
        return (sum(p * q for p, q in zip(u, v, strict=True)) / len(u) + 1) ** 3

    own = sum(k(s[i], s[j]) for s in (a, b) for i in range(6) for j in range(6) if i != j) / 30
    assert polynomial_mmd(a, b) == pytest.approx(own - 2 * sum(k(u, v) for u in a for v in b) / 36)


def test_kid_of_subsets(sets):
    one, two = sets
    found = kid(one, two, subsets=20, subset_size=50, seed=1)
    assert (
        found == kid(one, two, subsets=20, subset_size=50, seed=1) != kid(one, two, subsets=20, subset_size=50, seed=2)
    )
    assert found.mean == pytest.approx(polynomial_mmd(one[:160], two), abs=2 * found.std + 0.02) and found.std > 0
    same = kid(one[:100], one[100:], subsets=20, subset_size=50)
    assert abs(same.mean) < 3 * same.std / math.sqrt(20) + 0.02
    assert kid(one, two).subset_size == 160


def test_cmmd_equals_a_plain_loop():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(7, 5)), rng.normal(size=(4, 5)) + 1

    def mean(x, y):
        return np.mean([math.exp(-((u - v) ** 2).sum() / (2 * 10.0**2)) for u in x for v in y])

    assert cmmd(a, b) == pytest.approx(1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b)))
    assert cmmd(a, a) == pytest.approx(0.0, abs=1e-9)


def test_wrong_features_are_refused(sets):
    with pytest.raises(DataError, match="too few pictures"):
        Moments.of(sets[0][:1])
    with pytest.raises(DataError, match="different sizes"):
        fid(Moments.of(sets[0]), Moments.of(sets[1][:, :5]))
    with pytest.raises(DataError, match="not numbers"):
        cmmd(np.full((3, 2), np.nan), np.ones((3, 2)))


# --- Inception ----------------------------------------------------------------------------------------------------


def test_inception_features_equal_torch_fidelity(weights):
    model = load_inception(weights)
    for size in RECORDER.SIZES:
        x = prepare(Image.fromarray(RECORDER.draw_picture(size)), "tf")[None]
        with torch.inference_mode():
            ours = model(x)[0, RECORDER.SHOWN].numpy()
        assert np.allclose(ours, THEIRS["inception"]["x".join(map(str, size))], rtol=1e-4, atol=1e-3)


def test_resizing(weights):
    pixels = torch.tensor([[[0.0, 299.0], [598.0, 897.0]]])
    big = resize_tf(pixels)
    assert big.shape == (1, 299, 299)
    places = torch.arange(299) * (2 / 299)  # no half-pixel centres: the first pixel is the first pixel
    assert torch.allclose(big[0, 0], torch.minimum(places, torch.ones(299)) * 299, atol=1e-3)
    plain = Image.new("RGB", (40, 30), (10, 20, 30))
    assert torch.allclose(resize_clean(plain).mean((1, 2)), torch.tensor([10.0, 20.0, 30.0]), atol=1e-3)
    assert not torch.allclose(prepare(Image.fromarray(RECORDER.draw_picture((96, 96))), "clean").mean(), big.mean())


def test_the_scripted_file_is_called_as_clean_fid_calls_it(tmp_path):
    class Layers(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3), keepdim=True)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = Layers()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x) * 0 - 7

    torch.jit.script(Whole()).save(str(tmp_path / "inception-2015-12-05.pt"))
    extractor = InceptionFeatures(tmp_path / "inception-2015-12-05.pt")
    found = extractor.model(torch.full((2, 3, 299, 299), 192.0))
    assert extractor.resize == "clean" and torch.allclose(found, torch.full((2, 3), 0.5))


def test_missing_and_wrong_weights_are_told(tmp_path, weights):
    with pytest.raises(DataError, match="never downloaded"):
        load_extractor(f"inception={tmp_path}/gone.pth")
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="do not fit"):
        load_inception(tmp_path / "other.pth")
    (tmp_path / "bad.pt").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot load"):
        load_inception(tmp_path / "bad.pt")
    with pytest.raises(ConfigError, match="inception=FILE"):
        load_extractor("vgg=x")
    with pytest.raises(ConfigError, match="tf, clean"):
        InceptionFeatures(weights, resize="other")


def test_features_of_folders(tmp_path):
    rng = np.random.default_rng(1)
    for number in range(5):
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    paths = picture_files(tmp_path)
    extractor = load_extractor("clip=fake")
    told = []
    found = folder_features(extractor, paths, progress=lambda done, total: told.append((done, total)))
    assert len(paths) == len(found) == 5 and told == [(5, 5)]
    (tmp_path / "5.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"5\.png"):
        folder_features(extractor, picture_files(tmp_path))
    with pytest.raises(DataError, match="folder not found"):
        picture_files(tmp_path / "gone")
