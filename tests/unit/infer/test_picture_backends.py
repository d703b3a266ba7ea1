"""Classifiers, matchers, grounders and segmenters against the library's own models, on tiny random weights."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bettersynth.core.errors import ConfigError, DataError, MissingExtraError
from bettersynth.infer import fake, protocols
from bettersynth.infer.loader import (
    load_classifier,
    load_faces,
    load_grounder,
    load_matcher,
    load_scorer,
    load_segmenter,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def _neighbour(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared = _neighbour("test_hf_backends")
TINY = shared.TINY


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in ((50, 40), (32, 32), (33, 70))]


def _save(folder: Path, model: Any, size: dict[str, int], crop: bool = False) -> Any:
    model.save_pretrained(folder)
    shared.save_preprocessor(folder, size, crop)
    return model.eval()


def test_a_classifier_gives_the_library_s_logits(tmp_path: Path, images: list[Image.Image]) -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(**TINY, image_size=32, patch_size=8, id2label={0: "normal", 1: "nsfw"})
    model = _save(tmp_path, transformers.ViTForImageClassification(config), {"height": 32, "width": 32})
    ours = load_classifier(str(tmp_path), device="cpu")
    assert ours.labels == ("normal", "nsfw") and ours.logits([]).shape == (0, 2)
    pixels = [np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), np.float32) / 255 for image in images]
    x = (torch.tensor(np.stack(pixels)) - torch.tensor(ours.pixels.mean)) / torch.tensor(ours.pixels.std)  # type: ignore[attr-defined]
    with torch.inference_mode():
        expected = model(pixel_values=x.permute(0, 3, 1, 2)).logits.numpy()
    np.testing.assert_allclose(ours.logits(images), expected, atol=1e-5)
    with pytest.raises(ConfigError, match="not an image-text matcher"):
        load_matcher(str(tmp_path))


def test_an_aesthetics_predictor_is_clip_and_linear_layers(tmp_path: Path, images: list[Image.Image]) -> None:
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(**TINY, image_size=32, patch_size=8, projection_dim=24)
    model = _save(tmp_path, transformers.CLIPVisionModelWithProjection(config), {"shortest_edge": 32}, crop=True)
    layers = [torch.nn.Linear(24, 8), torch.nn.Linear(8, 1)]
    weights = load_file(tmp_path / "model.safetensors")
    for place, layer in zip((0, 2), layers, strict=True):  # a dropout stands between them
        weights |= {f"layers.{place}.weight": layer.weight.detach(), f"layers.{place}.bias": layer.bias.detach()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((tmp_path / "config.json").read_text())
    settings |= {"architectures": ["AestheticsPredictorV2Linear"], "model_type": "aesthetics_predictor"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    ours = load_classifier(str(tmp_path), device="cpu")
    with torch.inference_mode():
        embeds = model(pixel_values=ours.pixels(images)).image_embeds  # type: ignore[attr-defined]
        expected = layers[1](layers[0](embeds / embeds.norm(dim=-1, keepdim=True))).numpy()
    np.testing.assert_allclose(ours.logits(images), expected, atol=1e-5)
    save_file({k: v for k, v in weights.items() if "layers.0" not in k and "layers.2" not in k},
              tmp_path / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(DataError, match="cannot load the model"):
        load_classifier(str(tmp_path), device="cpu")


def test_matching_is_the_library_s_whatever_the_batch(tmp_path: Path, images: list[Image.Image]) -> None:
    torch.manual_seed(0)
    text = transformers.BlipTextConfig(
        **TINY, vocab_size=len(shared.WORDS), max_position_embeddings=16, encoder_hidden_size=32
    )
    vision = transformers.BlipVisionConfig(**TINY, image_size=32, patch_size=8)
    config = transformers.BlipConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), image_text_hidden_size=16
    )
    model = _save(tmp_path, transformers.BlipForImageTextRetrieval(config), {"height": 32, "width": 32})
    shared.save_tokenizer(tmp_path)
    ours = load_matcher(str(tmp_path), device="cpu")
    found = ours.match(images, shared.TEXTS)
    assert found.shape == (3,) and ((found > 0) & (found < 1)).all() and len(set(found.tolist())) == 3
    tokens = ours.tokenizer([shared.TEXTS[1]], return_tensors="pt")  # type: ignore[attr-defined]
    with torch.inference_mode():
        pixels = ours.pixels([images[1]])  # type: ignore[attr-defined]
        out = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
    assert abs(found[1] - out.itm_score.softmax(1)[0, 1].item()) < 1e-5
    assert abs(ours.match(images[:1], shared.TEXTS[:1])[0] - found[0]) < 1e-5


def test_places_are_in_pixels_and_best_first(tmp_path: Path, images: list[Image.Image]) -> None:
    torch.manual_seed(0)
    text = transformers.OwlViTTextConfig(
        **TINY, vocab_size=len(shared.WORDS), max_position_embeddings=16, pad_token_id=0, bos_token_id=2, eos_token_id=3
    )
    vision = transformers.OwlViTVisionConfig(**TINY, image_size=32, patch_size=8)
    config = transformers.OwlViTConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=32)
    _save(tmp_path, transformers.OwlViTForObjectDetection(config), {"height": 32, "width": 32})
    shared.save_tokenizer(tmp_path)
    ours = load_grounder(str(tmp_path), device="cpu")
    found = ours.ground(images[0], ["a red dog", "the house"], 3)
    assert len(found) == 3 and [box.score for box in found] == sorted((box.score for box in found), reverse=True)
    assert {box.phrase for box in found} <= {0, 1} and all(0 <= box.score <= 1 for box in found)
    centre = (found[0].left + found[0].right) / 2
    assert 0 <= centre <= images[0].width and found[0].right > found[0].left
    with pytest.raises(ConfigError, match="not an image-text scorer"):
        load_scorer(str(tmp_path))


def test_foreground_has_the_size_of_the_picture(tmp_path: Path, images: list[Image.Image]) -> None:
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[3, 3], strides=[2, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=3,
    )  # fmt: skip
    _save(tmp_path, transformers.SegformerForSemanticSegmentation(config), {"height": 32, "width": 32})
    masks = load_segmenter(str(tmp_path), device="cpu").foreground(images)
    assert [mask.shape for mask in masks] == [(image.height, image.width) for image in images]
    assert all(((mask >= 0) & (mask <= 1)).all() for mask in masks)


def test_the_stand_ins_fit_the_protocols(images: list[Image.Image]) -> None:
    assert isinstance(fake.FakeClassifier(), protocols.ImageClassifier)
    assert isinstance(fake.FakeMatcher(), protocols.ImageTextMatcher)
    assert isinstance(fake.FakeGrounder(), protocols.PhraseGrounder)
    assert isinstance(fake.FakeSegmenter(), protocols.Segmenter)
    faces: protocols.FaceDetector = fake.FakeFaces()
    assert all(x >= 0 and x + w <= image.width and y >= 0 and y + h <= image.height
               for image, found in zip(images, faces.faces(images), strict=True) for x, y, w, h in found)  # fmt: skip
    boxes = fake.FakeGrounder().ground(images[0], ["a", "b"], 1)
    assert len(boxes) == 1 and boxes[0].right >= boxes[0].left


class _Cascade:
    def __init__(self, place: str) -> None:
        self.place = place

    def empty(self) -> bool:
        return self.place.endswith("no.xml")

    def detectMultiScale(self, grey: Any, **search: Any) -> list[list[int]]:
        self.search = search
        return [[-2, 3, 10, 8], [grey.shape[1] - 4, grey.shape[0] - 3, 9, 9]]


def _cv2(**names: Any) -> Any:
    module = types.ModuleType("cv2")
    module.data = types.SimpleNamespace(haarcascades="/cascades/")  # type: ignore[attr-defined]
    module.COLOR_RGB2GRAY = 7  # type: ignore[attr-defined]
    module.cvtColor = lambda pixels, code: pixels[..., 0]  # type: ignore[attr-defined]
    for name, value in names.items():
        setattr(module, name, value)
    return module


def test_faces_are_clipped_to_the_picture_and_searched_as_asked(
    images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", _cv2(CascadeClassifier=_Cascade))
    detector = load_faces("")
    assert detector.digest == "/cascades/haarcascade_frontalface_alt.xml"
    found = detector.faces(images[:1], protocols.FaceSearch(1.2, 4, (5, 5)))
    assert found == [[(0, 3, 10, 8), (46, 37, 4, 3)]]
    assert detector.model.search == {"scaleFactor": 1.2, "minNeighbors": 4, "minSize": (5, 5), "maxSize": None}  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="cannot load the model"):
        load_faces("no.xml")
    monkeypatch.setitem(sys.modules, "cv2", _cv2())
    with pytest.raises(MissingExtraError, match="'faces' extra"):
        load_faces("")
