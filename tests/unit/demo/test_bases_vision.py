"""The tiny vision bases: labels and text they learn from, and what the shipped files can do."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BlipForConditionalGeneration, CLIPModel

from bettersynth.demo.bases import captioner, scorer
from bettersynth.demo.bases import vision_towers as towers
from bettersynth.demo.bases.vision import WEIGHTS, auc, pair_scores
from bettersynth.demo.bases.vision_data import CHANNEL_ORDERS, HEADS, THINGS, clip_view, dense_batches, dense_labels
from bettersynth.demo.bases.vision_text import CLS_ID, SEP_ID, UNK_ID, caption_batch, encode, make_tokenizer, scramble
from bettersynth.demo.world.language import caption
from bettersynth.demo.world.scene import Scene, Sign, Thing, sample_scene
from bettersynth.demo.world.vocab import BASE_VOCAB, COLOURS, EVAL_VOCAB, LETTERS
from bettersynth.models.mgm.vision import load_convnext_trunk

NAMES = (towers.CONVNEXT_NAME, towers.CLIP_NAME, scorer.NAME, captioner.NAME)


def test_dense_labels_follow_the_scene() -> None:
    scene = Scene("snow", (Thing("car", "blue", (2, 1), 47),), (Sign("STOP", 0, 12, 0),), 0)
    thing, colour, letter, digit, place = dense_labels(scene).reshape(len(HEADS), 6, 6)
    assert thing[0].tolist() == [THINGS.index(n) for n in ("snow", "sign", "sign", "sign", "sign", "snow")]
    assert letter[0, 1:5].tolist() == [LETTERS.index(c) for c in "STOP"] and (letter >= 0).sum() == 4
    assert colour[4, 2:4].tolist() == [COLOURS.index("blue")] * 2 and (colour >= 0).sum() == 2
    assert digit[5, 2:4].tolist() == [4, 7] and place[5, 5] == 35


def test_dense_batches_are_seeded_and_recoloured_pictures_lose_colour_labels() -> None:
    (x, labels), (x2, _) = next(dense_batches(1, 8, 1)), next(dense_batches(1, 8, 1))
    assert torch.equal(x, x2) and x.shape == (8, 3, 96, 96) and labels.shape == (8, 5, 36)
    _, every = next(dense_batches(1, 8, 1, recoloured_share=1.0))
    assert (every[:, 1] == -1).all() and [0, 1, 2] not in list(CHANNEL_ORDERS)


def test_clip_view_is_what_the_image_processor_makes() -> None:
    from PIL import Image

    from bettersynth.demo.world.render import render

    picture = render(sample_scene(random.Random(0), BASE_VOCAB))
    by_pil = np.asarray(picture.resize((48, 48), Image.Resampling.BICUBIC), dtype=np.float32)
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    ours = clip_view(x)[0].permute(1, 2, 0).clamp(0, 255).numpy()
    assert np.abs(by_pil - ours).mean() < 0.6


def test_captions_of_the_bases_hold_no_evaluation_word() -> None:
    rng = random.Random(4)
    said = {word for _ in range(4) for text in caption_batch(rng, 32, 2)[1] for word in text.split()}
    assert not said & set(EVAL_VOCAB.words)


def test_tokenizer_spells_upper_case_and_comes_back() -> None:
    tokenizer = make_tokenizer()
    text = "two red cars with number 47 ; the sign says QZJX"
    found = tokenizer.encode(text)
    assert found.ids[0] == CLS_ID and found.ids[-1] == SEP_ID and UNK_ID not in found.ids
    assert found.tokens[-5:-1] == ["Q", "##Z", "##J", "##X"]
    assert tokenizer.decode(found.ids) == text
    rng = random.Random(0)
    for vocab in (BASE_VOCAB, EVAL_VOCAB):
        texts = [caption(sample_scene(rng, vocab), rng) for _ in range(100)]
        ids, _ = encode(tokenizer, texts)
        assert UNK_ID not in ids
        assert tokenizer.decode_batch(ids.tolist()) == texts


def test_auc() -> None:
    good, bad = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0])
    assert auc(good, bad) == pytest.approx(3.5 / 4)


def test_shipped_folders_are_complete_and_small() -> None:
    total = 0
    for name in NAMES:
        folder = WEIGHTS / name
        total += sum(path.stat().st_size for path in folder.iterdir())
        assert (folder / "README.md").is_file()
        assert not list(folder.glob("*.tmp"))
    assert total <= 12e6
    assert json.loads((WEIGHTS / towers.CLIP_NAME / "config.json").read_text())["image_size"] == 48


def test_towers_load_in_their_own_layouts() -> None:
    maps = load_convnext_trunk(WEIGHTS / towers.CONVNEXT_NAME)(torch.zeros(1, 3, 96, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(24, 24, 24), (48, 12, 12), (96, 6, 6), (160, 3, 3)]


def test_scorer_prefers_the_right_caption() -> None:
    folder = WEIGHTS / scorer.NAME
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    assert scorer.retrieval(model, EVAL_VOCAB, 64) > 0.5
    assert AutoTokenizer.from_pretrained(folder)("a red ball").input_ids == make_tokenizer().encode("a red ball").ids


def test_captioner_reads_unseen_words() -> None:
    folder: Path = WEIGHTS / captioner.NAME
    model = BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    scores = captioner.evaluate_captioner(model, EVAL_VOCAB, 64)
    assert scores["word"] > 0.6 and scores["colour_kind"] > 0.6
    clean = pair_scores("captioner", model, "clean", 32)
    assert auc(clean, pair_scores("captioner", model, "mismatched", 32)) > 0.9


def test_scramble_touches_colours_and_letters_only_and_is_seeded() -> None:
    tokenizer = make_tokenizer()
    ids, _ = encode(tokenizer, ["two red cars with number 47 ; the sign says QZJX"] * 64)
    found = scramble(ids, torch.Generator().manual_seed(0))
    assert torch.equal(found, scramble(ids, torch.Generator().manual_seed(0)))
    changed = (found != ids).float().mean(0)
    tokens = tokenizer.encode_batch(["two red cars with number 47 ; the sign says QZJX"])[0].tokens
    may_change = torch.tensor([token == "red" or token.strip("#").isupper() for token in tokens])
    may_change[[0, -1]] = False
    assert (changed[~may_change] == 0).all() and (changed[may_change] > 0.02).all()
    assert changed[tokens.index("red")] > 0.25
