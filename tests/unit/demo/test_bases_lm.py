"""The tiny language model: its tokenizer, its rasters and batches, and that the shipped weights can read."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from bettersynth.demo.bases import lm, lm_card, lm_model  # noqa: E402
from bettersynth.demo.bases.lm_data import MODEL_HEADER, Encoder, Mixture, picture_batch, text_batch  # noqa: E402
from bettersynth.demo.bases.lm_eval import evaluate, exact_answers  # noqa: E402
from bettersynth.demo.bases.lm_raster import RASTER_FORMS, raster  # noqa: E402
from bettersynth.demo.bases.lm_train import Plan, train  # noqa: E402
from bettersynth.demo.bases.lm_turns import PICTURE_TURNS, QUESTION_WEIGHTS, find_letter_turn, plain_chat_turn  # noqa: E402
from bettersynth.demo.bases.tokenizer import build_vocabulary, write_tokenizer  # noqa: E402
from bettersynth.demo.world.language import COLOURS, KINDS, vocabulary_words  # noqa: E402
from bettersynth.demo.world.scene import Scene, Sign, Thing, sample_scene  # noqa: E402
from bettersynth.demo.world.vocab import BASE_VOCAB, EVAL_VOCAB, LETTERS  # noqa: E402

SCENE = Scene(
    "beach",
    (Thing("boat", "red", (1, 0), 42), Thing("star", "yellow", (2, 2))),
    (Sign("EXIT", 0, 16, 0),),
    seed=0,
)
SIGN_QUESTION = (
    "What word is on the sign?\nA. FISH\nB. LAKE\nC. EXIT\nD. GAME\n"
    "Answer with the option's letter from the given choices directly."
)
ALL_TURNS = dict.fromkeys(PICTURE_TURNS, 1.0)


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(lm.FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return lm.load_encoder(lm.FOLDER)


@pytest.fixture(scope="module")
def model():
    return lm_model.load(lm.FOLDER)


# --- tokenizer --------------------------------------------------------------------------------------------


def test_special_ids_are_gemmas(tokenizer) -> None:
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    assert tokenizer.convert_tokens_to_ids(marks) == list(range(7))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id) == (
        0,
        1,
        2,
        3,
    )
    assert tokenizer("red").input_ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize(
    "text",
    [
        "STOP",
        "42",
        "a red ball",
        "there is a black boat with number 61 at the top left on a beach ; the sign says OPEN",
        "What color is the hat?\nA. red\nB. top left\nAnswer with the option's letter from the given choices directly.",
        "cafÃ© <b>SALE</b>  50% — 買う",
    ],
)
def test_text_survives_the_tokenizer(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_a_sign_is_spelt_with_the_same_ids_everywhere(tokenizer) -> None:
    letters = tokenizer.convert_tokens_to_ids(list("STOP"))
    assert len(set(letters)) == 4
    for text in ("STOP", "the sign says STOP", "A. STOP\n", "STOP, 42"):
        ids = tokenizer(text).input_ids
        assert any(ids[place : place + 4] == letters for place in range(len(ids)))


def test_every_word_of_the_world_is_one_token(tokenizer) -> None:
    for word in [*vocabulary_words(), *COLOURS, *KINDS]:
        if len(word) > 1 and word.isalpha() and not word.isupper():
            assert len(tokenizer.tokenize(word)) == 1, word
            assert len(tokenizer.tokenize(f"a {word}")) == 2, word


def test_merges_need_no_file_but_the_word_list(tmp_path: Path) -> None:
    vocab, merges = build_vocabulary(["hat", "What", "hats", "STOP"])
    assert {"hat", "▁hat", "What", "▁What", "hats"} <= set(vocab)
    assert not any(part.isupper() for pair in merges for part in pair if len(part) > 1)
    count = write_tokenizer(tmp_path, ["hat", "What", "hats"])
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path)) == count


# --- rasters and batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", RASTER_FORMS)
def test_a_raster_shows_only_what_is_there(form: str) -> None:
    patches = raster(SCENE, form, random.Random(0))
    assert len(patches) == 36
    assert {word for patch in patches for word in patch} == {
        *"EXIT42",
        "sign",
        "beach",
        "red",
        "boat",
        "yellow",
        "star",
    }
    assert all(sum(patch.values()) == pytest.approx(1.0) for patch in patches)
    top = "".join(next((w for w in patch if w in LETTERS), ".") for patch in patches[:6])
    assert top == ".EXIT."


def test_blurred_letters_keep_their_patch_heaviest() -> None:
    rng = random.Random(1)
    sign = Sign("EXIT", 1, 8, 0)
    for _ in range(50):
        patches = raster(Scene("room", SCENE.things[:0], (sign,), 0), "blurred", rng)
        heaviest = [max(patch, key=patch.__getitem__) for patch in patches[13:17]]
        assert heaviest == list("EXIT")


def test_an_exchange_is_computed_as_if_it_stood_alone(encoder: Encoder) -> None:
    sizes = {**lm_model.SIZES, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}
    model = lm_model.build(encoder.tokenizer.get_vocab_size(), 0, sizes).eval()
    mixture = Mixture(ALL_TURNS, {"soft": 1.0}, num_scenes=2, num_turns=3, has_noise=False)
    batch = picture_batch(encoder, mixture, BASE_VOCAB, random.Random(0))
    first, size = batch.prefix_length, (batch.ids.shape[1] - batch.prefix_length) // 3
    with torch.no_grad():
        states = lm_model.hidden_states(model, batch)
        for turn in range(3):
            own = slice(first + turn * size, first + (turn + 1) * size)
            alone = torch.cat([states[0][:, :first], states[0][:, own]], dim=1)
            expected = model.model(inputs_embeds=alone).last_hidden_state[:, first:]
            assert torch.allclose(states[-1][:, own], expected, atol=1e-5)


def test_labels_are_the_answers(encoder: Encoder) -> None:
    rng = random.Random(0)
    mixture = Mixture(ALL_TURNS, dict.fromkeys(RASTER_FORMS, 1.0), num_scenes=20, num_turns=4)
    for batch in (
        picture_batch(encoder, mixture, BASE_VOCAB, rng),
        text_batch(encoder, mixture, rng, plain_chat_turn),
        text_batch(encoder, mixture, rng, lambda rng: find_letter_turn(BASE_VOCAB, rng)),
    ):
        assert len(batch.spans) == 80
        for row, start, end, turn in batch.spans:
            assert encoder.tokenizer.decode(batch.labels[row, start : end - 3].tolist()) == turn.answer
            header = encoder.encode([MODEL_HEADER])[0]
            assert batch.ids[row, start + 1 - len(header) : start + 1].tolist() == header
            assert batch.ids[row, start + 1 : end].tolist() == batch.labels[row, start : end - 1].tolist()
        labelled = sum(end - start for _, start, end, _ in batch.spans)
        assert (batch.labels >= 0).sum() == (batch.weights > 0).sum() == labelled
        num_options = sum(turn.num_options for *_, turn in batch.spans)
        assert (batch.rights >= 0).sum() == num_options
        assert (batch.rights == 1).sum() == sum(turn.num_options > 0 for *_, turn in batch.spans)


def test_training_uses_base_vocabulary_only() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = sample_scene(rng, BASE_VOCAB)
        for make in PICTURE_TURNS.values():
            turn = make(scene, BASE_VOCAB, rng, QUESTION_WEIGHTS)
            words = set(turn.prompt.replace(",", " ").split()) | set(turn.answer.split())
            assert turn.task.startswith(("ocr", "witness")) or not words & set(EVAL_VOCAB.words)


# --- training and the shipped weights ---------------------------------------------------------------------


def test_training_is_repeatable_and_learns(tmp_path: Path) -> None:
    count = write_tokenizer(tmp_path, ["red", "blue"])
    encoder = lm.load_encoder(lm.FOLDER)
    count = max(count, encoder.tokenizer.get_vocab_size())
    sizes = {**lm_model.SIZES, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64}
    plan = Plan(steps=40, num_scenes=2, num_turns=2, warmup_steps=5, lr=5e-3, is_bf16=False)
    models = [lm_model.build(count, 0, sizes) for _ in range(2)]
    for model in models:
        train(model, encoder, plan)
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(first, second)
    batch = picture_batch(encoder, Mixture(ALL_TURNS, {"hard": 1.0}, 4, 2), BASE_VOCAB, random.Random(9))
    fresh = lm_model.build(count, 0, sizes)
    assert _loss(models[0], batch) < 0.8 * _loss(fresh, batch)


def _loss(model, batch) -> float:
    with torch.no_grad():
        logits = model.lm_head(lm_model.hidden_states(model, batch)[-1])
    labels = torch.from_numpy(batch.labels)
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100))


def test_the_folder_is_in_the_official_form() -> None:
    config = json.loads((lm.FOLDER / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["GemmaForCausalLM"], "gemma")
    assert config["hidden_act"] == "gelu"
    index = json.loads((lm.FOLDER / "model.safetensors.index.json").read_text())["weight_map"]
    assert "model.embed_tokens.weight" in index and "lm_head.weight" not in index
    assert sum((lm.FOLDER / name).stat().st_size for name in set(index.values())) <= 4_000_000


def test_the_model_runs_the_exact_gelu(model) -> None:
    x = torch.linspace(-3, 3, 61)
    assert torch.equal(model.model.layers[0].mlp.act_fn(x), torch.nn.functional.gelu(x))


def test_saving_and_loading_keeps_the_answers(model, encoder: Encoder, tmp_path: Path) -> None:
    lm_model.save(model, tmp_path)
    again = lm_model.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("What does the sign say?\nAnswer the question using a single word or phrase.", "EXIT"),
        ("What color is the boat?\nAnswer the question using a single word or phrase.", "red"),
        (SIGN_QUESTION, "C"),
    ],
)
def test_a_textual_scene_is_read_as_image_tokens_would_be(model, tokenizer, encoder, prompt: str, answer: str) -> None:
    ids, weights = encoder.patches([raster(SCENE, "soft", random.Random(0))])
    embed = model.get_input_embeddings()
    before = tokenizer("<start_of_turn>user\n", return_tensors="pt").input_ids
    after = tokenizer(f"\n{prompt}{MODEL_HEADER}", return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        patches = (embed(torch.from_numpy(ids)) * torch.from_numpy(weights)[..., None]).sum(2)
        inputs = torch.cat([embed(before), patches, embed(after)], dim=1)
        reply = model.generate(inputs_embeds=inputs, max_new_tokens=12, do_sample=False)
    assert tokenizer.decode(reply[0], skip_special_tokens=True).strip() == answer


def test_unseen_words_and_pairs_are_read(model, encoder: Encoder) -> None:
    scores = evaluate(model, encoder, EVAL_VOCAB, "soft", num_batches=1)
    shares = {name: right / asked for name, (right, asked) in scores.items() if "/" not in name}
    assert shares["short"] >= 0.7  # the card: .73 and .66 over more scenes; guessing gives less than .1 and .25
    assert shares["letter"] >= 0.55


def test_exact_answers_and_the_table(model, encoder: Encoder) -> None:
    mixture = Mixture({"caption": 1.0}, {"plain": 1.0}, num_scenes=2, num_turns=2, has_noise=False)
    batch = picture_batch(encoder, mixture, BASE_VOCAB, random.Random(0))
    wrong = np.where(batch.labels >= 0, 1, batch.labels)
    assert len(exact_answers(model, batch)) == 4
    batch.labels[:] = wrong
    assert not any(exact_answers(model, batch))
    text = lm_card.table({"base hard": {"letter": (3, 4)}, "eval hard": {"letter": (2, 4), "short": (1, 1)}})
    assert "| letter | 0.750 | 0.500 | 8 |" in text
    assert "| short | - | 1.000 | 1 |" in text
