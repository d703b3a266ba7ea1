from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.sample import ImageRef
from bettersynth.infer.checkpoint import CheckpointChatModel, checkpoint_digest
from bettersynth.infer.protocols import ChatModel, ChatRequest, Decoding

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "data" / "mgm_a"
DECODING = Decoding(max_new_tokens=6)


@pytest.fixture(scope="module")
def chat():
    return CheckpointChatModel(GOLDEN / "checkpoint", batch_size=3)


@pytest.fixture
def requests(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    a, b = ImageRef(str(tmp_path / "a.png")), ImageRef(str(tmp_path / "b.png"))
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 10, 10)).save(buffer, "PNG")
    return [
        ChatRequest("1", "What is this?\nAnswer the question using a single word or phrase.", a),
        ChatRequest("2", "hello", None),
        ChatRequest("3", "Which one?\nA. red\nB. blue", b),
        ChatRequest("4", "What colour?", buffer.getvalue()),
        ChatRequest("5", "And this?", a),
    ]


def test_it_is_a_chat_model(chat):
    assert isinstance(chat, ChatModel)


def test_answers_come_in_order_and_do_not_depend_on_the_batch(chat, requests):
    together = chat.generate(requests, DECODING)
    assert [answer.key for answer in together] == ["1", "2", "3", "4", "5"]
    assert together == [chat.generate([request], DECODING)[0] for request in requests]
    for answer in together:
        assert 0 < len(answer.token_ids) <= 6
        assert (answer.finish == "stop") == (answer.token_ids[-1] == chat.processor.tokenizer.eos_id)
        assert answer.text == answer.text.strip() and "<eos>" not in answer.text


def test_each_picture_is_encoded_once(chat, requests, monkeypatch):
    seen = []
    encode = chat.model.encode_images
    monkeypatch.setattr(chat.model, "encode_images", lambda pixels: seen.append(len(pixels)) or encode(pixels))
    chat.generate(requests, DECODING)
    assert sum(seen) == 3


@pytest.mark.parametrize("letters", [(), ("A", "B", "C")])
def test_what_rotations_share_is_read_once(requests, letters, monkeypatch):
    chat = CheckpointChatModel(GOLDEN / "checkpoint", batch_size=8)
    options = ["red", "a big blue circle", "two"]
    asked = []
    for picture in (requests[0].image, requests[2].image):
        for turn in range(3):
            shown = options[turn:] + options[:turn]
            lines = "".join(f"\n{letter}. {text}" for letter, text in zip("ABC", shown, strict=True))
            asked.append(ChatRequest(f"{len(asked)}", f"What is shown in the picture?{lines}", picture, letters))
    alone = [chat.generate([request], DECODING)[0] for request in asked]
    read = []
    scale = chat.model.scale
    monkeypatch.setattr(chat.model, "scale", lambda embeds: read.append(embeds.shape[:2]) or scale(embeds))
    assert chat.generate(asked, DECODING) == alone
    heads, tails = read[:2]
    assert heads[0] == 2 and tails[0] == 6
    assert heads[1] > chat.processor.tokens_per_image > tails[1] // 2


def test_no_requests(chat):
    assert chat.generate([], DECODING) == []


def test_sampling_is_refused(chat, requests):
    with pytest.raises(ConfigError, match="greedily"):
        chat.generate(requests, Decoding(max_new_tokens=1, do_sample=True))


def test_damaged_picture_names_file_and_request(chat, tmp_path):
    (tmp_path / "x.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="not an image") as caught:
        chat.generate([ChatRequest("q9", "what?", ImageRef(str(tmp_path / "x.png")))], DECODING)
    assert "x.png" in caught.value.render() and "q9" in caught.value.render()


def test_digest_follows_weights_and_processing(chat, tmp_path):
    assert chat.digest == CheckpointChatModel(GOLDEN / "checkpoint", batch_size=1).digest
    assert chat.digest != CheckpointChatModel(GOLDEN / "checkpoint", image_aspect_ratio="square").digest
    copy = Path(shutil.copytree(GOLDEN / "checkpoint", tmp_path / "copy"))
    assert checkpoint_digest(copy) == checkpoint_digest(GOLDEN / "checkpoint")
    (copy / "trainer.log").write_text("no part of the model")
    assert checkpoint_digest(copy) == checkpoint_digest(GOLDEN / "checkpoint")
    shard = sorted(copy.glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(bytes(data))
    assert checkpoint_digest(copy) != checkpoint_digest(GOLDEN / "checkpoint")


def test_unknown_dtype():
    with pytest.raises(ConfigError, match="unsupported value"):
        CheckpointChatModel(GOLDEN / "checkpoint", dtype="int8")


def _with(requests, choices):
    return [ChatRequest(request.key, request.prompt, request.image, choices) for request in requests]


def test_a_choice_is_the_likeliest_of_the_allowed_words(chat, requests):
    greedy = chat.generate(requests, Decoding(max_new_tokens=1))
    tokenizer = chat.processor.tokenizer
    words = ("A", "B", "C", "D")
    chosen = chat.generate(_with(requests, words), DECODING)
    assert [answer.key for answer in chosen] == [request.key for request in requests]
    assert chosen == [chat.generate(_with([request], words), DECODING)[0] for request in requests]
    for free, answer in zip(greedy, chosen, strict=True):
        assert answer.text in words and answer.finish == "stop"
        assert answer.token_ids == (tokenizer.encode(answer.text)[0][0],)
        if free.token_ids[0] in {tokenizer.encode(word)[0][0] for word in words}:
            assert answer.token_ids == free.token_ids
    # Leaving the winner out makes another word win, so the choice is no constant of the order.
    without = tuple(word for word in words if word != chosen[0].text)
    assert chat.generate(_with(requests[:1], without), DECODING)[0].text in without


def test_a_word_that_would_be_generated_is_chosen(chat, requests):
    free = chat.generate(requests[2:3], Decoding(max_new_tokens=1))[0]
    word = chat.processor.tokenizer.backend.id_to_token(free.token_ids[0])
    if chat.processor.tokenizer.encode(word)[0] != list(free.token_ids):
        pytest.skip("the golden model begins with a token that no word stands for")
    assert chat.generate(_with(requests[2:3], ("A", word)), DECODING)[0].text == word


def test_choices_that_begin_alike_are_refused(chat, requests):
    with pytest.raises(DataError, match="do not differ"):
        chat.generate(_with(requests[:1], ("A", "A")), DECODING)
