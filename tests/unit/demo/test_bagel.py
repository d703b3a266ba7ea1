"""The tiny BAGEL of the demo: closed-form latents, the start folder, records, and that training moves both losses."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from bettersynth.core.errors import DataError
from bettersynth.demo.bagel import autoencoder, encoder, pretrain, scores, sight
from bettersynth.demo.bagel.data import (
    LAYOUTS,
    MIX,
    describe,
    draw_record,
    draw_scene,
    prompted_scene,
    write_records,
)
from bettersynth.demo.bagel.start import write_start
from bettersynth.demo.bases.vision_data import normalise
from bettersynth.demo.world.facts import judge, parse
from bettersynth.demo.world.language import Question
from bettersynth.demo.world.render import render_array
from bettersynth.demo.world.vocab import BASE_VOCAB, COLOURS, EVAL_VOCAB, LETTERS
from bettersynth.formats.unified import parse_record
from bettersynth.models.bagel.autoencoder import AutoEncoder
from bettersynth.models.bagel.config import LlmConfig, VitConfig
from bettersynth.models.bagel.convert import load_checkpoint
from bettersynth.models.bagel.packing import patchify
from bettersynth.models.bagel.records import Picture
from bettersynth.models.bagel.tokens import BagelTokenizer
from bettersynth.models.bagel.vision import VitEncoder
from bettersynth.train.preset import load_preset, stage_settings
from bettersynth.train.stages import run_stage
from bettersynth.train.unified_dataset import UnifiedGenerationDataset

TINY = LlmConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
)


def test_the_network_computes_the_components() -> None:
    images = autoencoder.take(24, BASE_VOCAB, 1)
    parts = encoder.fit(list(images))
    model = AutoEncoder(encoder.SIZES)
    encoder.write_encoder(model, parts)
    with torch.no_grad():
        mean, log_variance = model.moments(images[:4])
    squares = encoder.gather(encoder.gather(images[:4]))
    coded = torch.einsum("oc,bchw->bohw", parts.first, squares) + parts.first_offset[:, None, None]
    wanted = torch.einsum("oc,bchw->bohw", parts.second, encoder.gather(coded)) + parts.second_offset[:, None, None]
    assert (mean - wanted).abs().max() < 5e-3 < 0.2 < wanted.std()
    assert torch.allclose(log_variance, torch.full_like(log_variance, -7.0), atol=1e-3)


def test_the_shipped_autoencoder_gives_pictures_back() -> None:
    model = autoencoder.load_autoencoder()
    images = autoencoder.take(4, BASE_VOCAB, 7)
    with torch.no_grad():
        latents = model.encode(images)
        again = model.decode(latents).clamp(-1, 1)
    assert 0.5 < latents.std() < 2.0
    assert (again - images).abs().mean() * 127.5 < 30  # grey levels; the photometric noise alone is 5
    fresh = autoencoder.build()
    with torch.no_grad():
        assert torch.allclose(fresh.encode(images), latents, atol=0.05)


def test_training_of_the_decoder_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "FIT_PICTURES", 64)
    monkeypatch.setattr(autoencoder, "_POOL", 8)
    monkeypatch.setattr(autoencoder, "BATCH", 2)
    assert autoencoder.train(tmp_path / "whole", steps=4)["step"] == 4
    state = tmp_path / "cut" / autoencoder.STATE_FILE
    assert autoencoder.train(tmp_path / "cut", steps=4, max_seconds=-1.0)["step"] == 0 and state.is_file()
    assert autoencoder.train(tmp_path / "cut", steps=4)["step"] == 4
    for name in (autoencoder.WEIGHTS_FILE, autoencoder.CONFIG_FILE):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_missing_autoencoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vae_config\.json"):
        autoencoder.load_autoencoder(tmp_path)


def test_records_are_the_same_again_and_show_no_held_out_combination(tmp_path: Path) -> None:
    for name in ("a", "b"):
        kinds = write_records(tmp_path / name, count=60, seed=3)
        assert set(kinds) <= set(MIX) and sum(kinds.values()) == 60
    assert (tmp_path / "a" / "train.jsonl").read_bytes() == (tmp_path / "b" / "train.jsonl").read_bytes()
    text = (tmp_path / "a" / "train.jsonl").read_text()
    for line in text.splitlines():
        record = json.loads(line)
        for said in [
            record.get("text_prompt", ""),
            *(turn.get("content", "") for turn in record.get("conversations", ())),
        ]:
            assert all((group.colour, group.kind) in BASE_VOCAB.combos for group in parse(said).groups)
    assert '"text_prompt"' in text and '"assistant", "type": "text"' in text


def test_short_prompts_are_true_of_their_scenes() -> None:
    counts = set()
    for number in range(200):
        scene, text = prompted_scene(random.Random(number))
        facts = parse(text)
        assert judge(facts, scene)["right"] and sum(group.count for group in facts.groups) == len(scene.things), text
        if all(group.cell is None for group in facts.groups):
            counts.add(len(scene.things))
            assert tuple(thing.cell for thing in scene.things) == LAYOUTS[len(scene.things)]
    assert counts == set(LAYOUTS)


def test_mosaics_list_nine_objects_row_by_row() -> None:
    kinds, mosaics, forms = [], 0, set()
    for number in range(60):
        kind, scenes, record = draw_record(number, ("a", "b"), seed=1, mosaics=0.5)
        scene = scenes["a"]
        kinds.append(kind)
        if len(scene.things) == 9:
            mosaics += 1
            said = [record.get("text_prompt"), *(turn.get("content") for turn in record.get("conversations", ()))]
            singles = " ".join(f"{thing.colour} {thing.kind}" for thing in scene.things)
            rows = " ".join(f"three {thing.colour} {thing.kind}s" for thing in scene.things[::3])
            assert singles in said or rows in said
            forms |= {singles in said}
        assert all(thing.combo in BASE_VOCAB.combos for one in scenes.values() for thing in one.things)
        assert ("b" in scenes) == ('"b"' in json.dumps(record))
    assert set(kinds) == set(MIX) and 15 < mosaics < 45 and forms == {True, False}


def test_true_descriptions_and_answers_are_right_and_others_are_not() -> None:
    scenes = scores.unseen_scenes(20)
    assert all(thing.combo in EVAL_VOCAB.combos for scene in scenes for thing in scene.things)
    told = [scores.judged_caption(scene, describe(scene)) for scene in scenes]
    assert all(caption.is_right for caption in told)
    wrong = [scores.judged_caption(scene, describe(other)) for scene, other in pairwise(scenes)]
    assert not any(caption.is_right for caption in wrong)
    assert not scores.judged_caption(scenes[0], "").is_right
    question = Question("colour", "What color is the hat?", "red")
    assert scores.Answer(scenes[0], question, "red").is_right
    assert not scores.Answer(scenes[0], question, "red hat").is_right


def test_pretraining_continues_to_the_same_weights_and_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrain, "BATCH", 4)
    monkeypatch.setattr(pretrain, "COOLDOWN_BATCH", 4)
    monkeypatch.setattr(pretrain, "FIT_PICTURES", 32)
    monkeypatch.setattr(pretrain, "sight_accuracy", lambda *given: {})
    words = ["--cooldown", "1", "--records", "8", "--sight", "2"]
    assert pretrain.main(["--out", str(tmp_path / "whole"), "--steps", "2", *words]) == 0
    assert pretrain.main(["--out", str(tmp_path / "cut"), "--steps", "1", *words]) == 0
    assert pretrain.main(["--out", str(tmp_path / "cut"), "--steps", "2", *words]) == 0
    assert pretrain.main(["--out", str(tmp_path / "cut"), "--steps", "2", *words[:-1], "3"]) == 2
    assert "another number of steps" in capsys.readouterr().err
    whole, cut = (tmp_path / name / "bagel-tiny" / "ema.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes() and whole.stat().st_size < 7e6
    assert not (tmp_path / "whole" / "bagel-tiny" / "ae.safetensors").exists()


def test_pictures_drawn_for_training_have_the_latents_of_the_network(tmp_path: Path) -> None:
    write_start(tmp_path, llm=TINY)
    model = load_checkpoint(tmp_path, dtype=torch.float32)
    drawn = pretrain.world_processor(model, pretrain.settings(tmp_path, 10, is_cooldown=False), pretrain.MOSAICS)
    data = pretrain.world_set(drawn, 4)
    assert len(data.examples) == 4 and {p.size for e in data.examples for p in e.images} == {(96, 96)}
    seen, latents = Picture("3", "vit_image", (96, 96)), Picture("3", "vae_image", (96, 96))
    pixels = torch.from_numpy(drawn._load(seen, "3").copy()).permute(2, 0, 1) / 127.5 - 1
    moments = drawn._load(latents, "3")
    assert moments.shape == (32, 12, 12) and np.abs(moments - drawn.moments(pixels)).max() < 0.05 < moments[:16].std()


def test_the_vision_encoder_learns_what_patches_show() -> None:
    torch.manual_seed(0)
    encoder = VitEncoder(VitConfig(32, 64, 1, 2, image_size=96, patch_size=16), 1)
    losses: list[float] = []
    heads = sight.train_sight(encoder, steps=40, seed=3, tell=lambda _, loss: losses.append(loss))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), losses
    picture = torch.from_numpy(render_array(draw_scene(random.Random(2))).copy()).permute(2, 0, 1)
    expected = patchify(picture / 127.5 - 1, 16)
    given = sight.patches_of(normalise(picture.permute(1, 2, 0).numpy()[None]))
    assert torch.allclose(given, expected, atol=1e-5)
    assert heads(sight.features(encoder, torch.zeros(2, 3, 96, 96)))["colour"].shape == (2, 36, 8)


def test_words_to_be_learnt_are_misread_and_nothing_else(tmp_path: Path) -> None:
    write_start(tmp_path, llm=TINY)
    model = load_checkpoint(tmp_path, dtype=torch.float32)
    drawn = pretrain.world_processor(model, pretrain.settings(tmp_path, 10, is_cooldown=False), pretrain.MOSAICS)
    numbers = range(24)
    examples = [drawn.encode(parse_record({"id": str(n), **drawn.record(n)[2]})) for n in numbers]
    pixels = [drawn.load_pixels(example) for example in examples]
    given = replace(drawn, misread=()).collate_step(5, numbers, examples, pixels)
    misread = drawn.collate_step(5, numbers, examples, pixels)
    assert {name for name in given if not torch.equal(given[name], misread[name])} == {"packed_text_ids"}
    changed = given["packed_text_ids"] != misread["packed_text_ids"]
    names = BagelTokenizer(tmp_path).backend
    words = {names.id_to_token(int(i)).strip("▁") for i in misread["packed_text_ids"][changed]}
    assert words and words <= {*COLOURS, *LETTERS}
    learnt = torch.isin(given["packed_text_indexes"], given["ce_loss_indexes"])
    assert learnt[changed].all()
    alone = drawn.collate_step(5, numbers[7:9], examples[7:9], pixels[7:9])
    begin = int(given["sample_lens"][:7].sum())
    inside = (given["packed_text_indexes"] >= begin) & (
        given["packed_text_indexes"] < begin + int(given["sample_lens"][7:9].sum())
    )
    assert torch.equal(misread["packed_text_ids"][inside], alone["packed_text_ids"])


def test_the_preset_trains_both_losses_on_the_demo_world(tmp_path: Path) -> None:
    write_records(tmp_path, count=48, seed=1)
    config = write_start(tmp_path / "start", llm=TINY)
    assert config.latent_dim == 64 and config.latent_stride_px == 16 and config.vit.table_side == 6
    data = UnifiedGenerationDataset(tmp_path / "train.jsonl", tmp_path / "start")
    assert len(data) == 48 and not data.rejected
    assert {picture.size for example in data for picture in example.images} == {(96, 96)}
    places = {"data": tmp_path / "train.jsonl", "init_from": tmp_path / "start", "lr": 5e-3, "samples_seen": 480}
    stage = stage_settings(load_preset("bagel_demo"), 2, {**places, "logging_steps": 1})
    run_stage(stage, out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    for key, share in (("text_loss", 0.8), ("image_loss", 0.97)):
        values = [line[key] for line in lines if key in line]
        assert sum(values[-5:]) < share * sum(values[:5]), (key, values)
    model = load_checkpoint(tmp_path / "run", dtype=torch.float32)
    assert model.autoencoder.config.scale_factor == config.vae.scale_factor
