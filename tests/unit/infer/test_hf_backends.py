"""The CLIP and BLIP backends against the library's own models, on tiny random weights in the official layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.infer.loader import load_captioner, load_scorer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *["a", "red", "dog", "house", "sign", "says", "on", "the"],
    *"STOP",
    *["##S", "##T", "##O", "##P"],
]
TEXTS = ["a red dog", "the sign says STOP on the house", "a"]
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocab = {word: number for number, word in enumerate(dict.fromkeys(WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)


def save_preprocessor(folder: Path, size: dict[str, int], crop: bool) -> None:
    config = {"size": size, "do_center_crop": crop, "crop_size": {"height": 32, "width": 32}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(50, 40), (32, 32), (33, 70)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        **TINY, vocab_size=len(WORDS), max_position_embeddings=16, pad_token_id=0, bos_token_id=2, eos_token_id=3
    )
    vision = transformers.CLIPVisionConfig(**TINY, image_size=32, patch_size=8)
    config = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)
    transformers.CLIPModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    save_preprocessor(folder, {"shortest_edge": 32}, crop=True)
    return folder


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    torch.manual_seed(0)
    text = transformers.BlipTextConfig(
        **TINY,
        vocab_size=len(WORDS),
        encoder_hidden_size=32,
        max_position_embeddings=20,
        bos_token_id=2,
        eos_token_id=3,
        sep_token_id=3,
        pad_token_id=0,
        initializer_range=0.5,
    )
    vision = transformers.BlipVisionConfig(**TINY, image_size=32, patch_size=8)
    config = transformers.BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    save_tokenizer(folder)
    save_preprocessor(folder, {"height": 32, "width": 32}, crop=False)
    return folder


def test_clip_scores_equal_the_librarys(clip_folder: Path, images: list[Any]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    scorer = load_scorer(str(clip_folder), device="cpu")
    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(images, return_tensors="pt")["pixel_values"]
    tokens = transformers.AutoTokenizer.from_pretrained(clip_folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(pixel_values=pixels, **tokens).logits_per_text.diag().numpy() / 100
    got = scorer.score(images, TEXTS)
    np.testing.assert_allclose(got, expected, atol=2e-6)
    np.testing.assert_allclose(scorer.score(images[1:2], TEXTS[1:2]), got[1:2], atol=2e-6)  # alone as in company
    assert scorer.embed_images([]).shape == (0, 24)
    np.testing.assert_allclose(np.linalg.norm(scorer.embed_texts(TEXTS), axis=1), 1, atol=1e-5)
    scorer.score(images[:1], ["a " * 100])  # longer than the model can read: cut, no error


def test_a_clip_folder_with_only_a_bin_file_is_read(clip_folder: Path, images: list[Any], tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file

    folder = shutil.copytree(clip_folder, tmp_path / "bin")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    got = load_scorer(str(folder), device="cpu").score(images, TEXTS)
    np.testing.assert_allclose(got, load_scorer(str(clip_folder), device="cpu").score(images, TEXTS), atol=1e-6)


def test_blip_likelihoods_and_captions_equal_the_librarys(blip_folder: Path, images: list[Any]) -> None:
    captioner = load_captioner(str(blip_folder), device="cpu")
    model = transformers.BlipForConditionalGeneration.from_pretrained(blip_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(blip_folder)
    pixels = captioner.pixels(images)  # type: ignore[attr-defined]
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(pixel_values=pixels, **tokens).logits.log_softmax(-1)
        written = model.generate(pixel_values=pixels, max_new_tokens=6, do_sample=False, num_beams=1)
    for row, nll in enumerate(captioner.nll(images, TEXTS)):
        length = int(tokens["attention_mask"][row].sum())
        expected = -logits[row, : length - 1].gather(1, tokens["input_ids"][row, 1:length, None])[:, 0]
        np.testing.assert_allclose(nll.tokens, expected.numpy(), atol=2e-4)
        assert nll.mean == pytest.approx(float(expected.mean()), abs=2e-4)
        inside = [TEXTS[row][a:b] for a, b in nll.spans if b > a]
        assert "".join(inside) == TEXTS[row].replace(" ", "")
    expected_texts = [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
    assert captioner.caption(images, max_new_tokens=6) == expected_texts


def test_sampled_captions_depend_on_their_own_seed_alone(blip_folder: Path, images: list[Any]) -> None:
    captioner = load_captioner(str(blip_folder), device="cpu")
    first = captioner.caption(images, seeds=[1, 2, 3], max_new_tokens=8)
    assert captioner.caption(images[::-1], seeds=[3, 2, 1], max_new_tokens=8) == first[::-1]
    assert captioner.caption(images, seeds=[4, 5, 6], max_new_tokens=8) != first


def test_blip2_with_opt_is_read(blip_folder: Path, images: list[Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Blip2Config(
        vision_config=transformers.Blip2VisionConfig(**TINY, image_size=32, patch_size=8).to_dict(),
        qformer_config=transformers.Blip2QFormerConfig(**TINY, encoder_hidden_size=32, vocab_size=50).to_dict(),
        text_config=transformers.OPTConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=64,
            word_embed_proj_dim=32,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        ).to_dict(),
        num_query_tokens=4,
    )
    transformers.Blip2ForConditionalGeneration(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    save_preprocessor(tmp_path, {"height": 32, "width": 32}, crop=False)
    captioner = load_captioner(str(tmp_path), device="cpu")
    assert len(captioner.caption(images, max_new_tokens=4)) == 3
    together, alone = captioner.nll(images, TEXTS), captioner.nll(images[2:], TEXTS[2:])
    assert together[2].tokens == pytest.approx(alone[0].tokens, abs=1e-3) and len(together[1].tokens) == 11


def test_wrong_folders_are_refused(clip_folder: Path, blip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model in this folder"):
        load_scorer(str(tmp_path))
    with pytest.raises(ConfigError, match="not a captioner"):
        load_captioner(str(clip_folder))
    with pytest.raises(ConfigError, match="not an image-text scorer"):
        load_scorer(str(blip_folder))
    (tmp_path / "config.json").write_text((clip_folder / "config.json").read_text())
    with pytest.raises(DataError, match="cannot load the model"):
        load_scorer(str(tmp_path), device="cpu")
    with pytest.raises(ConfigError, match="unknown device"):
        load_scorer(str(clip_folder), device="tpu")
