from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from bettersynth.core.errors import DataError
from bettersynth.core.sample import ImageRef
from bettersynth.models.family import Example, Rejected, load_family
from bettersynth.models.mgm.processor import TextTokenizer


@pytest.fixture
def processor(tiny_model, tmp_path):
    return load_family("mgm").processor(tiny_model, image_aspect_ratio="pad", max_length=120, image_root=tmp_path)


GOOD = [("human", "<image>\nwhat is it?"), ("gpt", "a dog")]


def test_a_good_record(processor, conversation):
    example = processor.encode(conversation(GOOD, ("a.png",)))
    assert isinstance(example, Example)
    assert example.images == (ImageRef("a.png"),) and example.input_ids.count(-200) == 1
    assert example.num_tokens == len(example.input_ids) - 1 + 36
    learnt = [token for token in example.labels if token != -100]
    assert processor.tokenizer.backend.decode(learnt, skip_special_tokens=False) == "a dog<end_of_turn>\n<eos>"


def test_two_pictures_keep_two_tags(processor, conversation):
    example = processor.encode(conversation([("human", "<image><image> compare"), ("gpt", "same")], ("a.png", "b.png")))
    assert isinstance(example, Example)
    assert example.images == (ImageRef("a.png"), ImageRef("b.png")) and example.input_ids.count(-200) == 2


@pytest.mark.parametrize(
    ("turns", "images", "reason"),
    [
        ([], (), "no_turns"),
        ([("gpt", "hello")], (), "no_turns"),
        ([("human", "q"), ("human", "q"), ("gpt", "a")], (), "bad_roles"),
        ([("human", "q"), ("bot", "a")], (), "bad_roles"),
        ([("human", "q"), ("gpt", "")], (), "empty_answer"),
        ([("human", ""), ("gpt", "a")], (), "empty_question"),
        ([("human", "q"), ("gpt", "a"), ("human", "q")], (), "ends_with_human"),
        ([("human", "q <eos>"), ("gpt", "a")], (), "special_token_in_text"),
        ([("human", "q"), ("gpt", "a<end_of_turn>")], (), "special_token_in_text"),
        ([("human", "<image>"), ("gpt", "a")], (), "image_tag_without_image"),
        ([("human", "<image><image>"), ("gpt", "a")], ("a.png",), "image_count"),
        ([("human", "q"), ("gpt", "<image>a")], ("a.png",), "image_in_answer"),
        ([("human", "q"), ("gpt", "word " * 120)], (), "too_long"),
        ([("human", "<image>\n" + "word " * 40), ("gpt", "word " * 40)], ("a.png",), "too_long"),
    ],
)
def test_what_cannot_be_learnt_is_named(processor, conversation, turns, images, reason):
    result = processor.encode(conversation(turns, images))
    assert isinstance(result, Rejected)
    assert (result.key, result.reason) == ("k", reason) and result.detail


def test_a_record_exactly_as_long_as_allowed_is_kept(processor, conversation):
    example = processor.encode(conversation(GOOD, ("a.png",)))
    for allowed, kind in ((example.num_tokens, Example), (example.num_tokens - 1, Rejected)):
        limited = type(processor)(**{**vars(processor), "max_length": allowed})
        assert isinstance(limited.encode(conversation(GOOD, ("a.png",))), kind)


def test_pixels_and_batch(processor, conversation, tmp_path):
    Image.new("RGB", (50, 20), (10, 200, 30)).save(tmp_path / "a.png")
    example = processor.encode(conversation(GOOD, ("a.png",)))
    pixels = processor.load_pixels(example)
    assert [p.shape for p in pixels] == [(96, 96, 3)] and pixels[0].dtype == np.uint8
    assert pixels[0][0, 0].tolist() == [122, 116, 104]
    batch = processor.collate([example], [pixels])
    assert tuple(batch["images"].shape) == (1, 96, 96, 3)
    with pytest.raises(DataError, match="wrong number of pictures"):
        processor.collate([example], [[]])


def test_missing_and_truncated_pictures_name_file_and_record(processor, conversation, tmp_path):
    example = processor.encode(conversation(GOOD, ("a.jpg",), key="row-7"))
    with pytest.raises(DataError, match="not found") as caught:
        processor.load_pixels(example)
    assert "a.jpg" in caught.value.render() and "row-7" in caught.value.render()
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    with pytest.raises(DataError, match="truncated or damaged") as caught:
        processor.load_pixels(example)
    assert "a.jpg" in caught.value.render()


def test_workers_can_pickle_it(processor, conversation):
    again = pickle.loads(pickle.dumps(processor))
    record = conversation(GOOD, ("a.png",))
    assert again.encode(record) == processor.encode(record)


def test_image_tag_in_a_question_stays_text(processor):
    plain = processor.encode_question("k", "what does <image> mean?", None)
    pictured = processor.encode_question("k", "what does <image> mean?", ImageRef("a.png"))
    assert plain.input_ids.count(-200) == 0 and pictured.input_ids.count(-200) == 1
    with pytest.raises(DataError, match="too long"):
        processor.encode_question("k", "word " * 200, None)


def test_folder_and_model_give_the_same_processor(tiny_model, tmp_path, conversation):
    family = load_family("mgm")
    import torch

    family.save_checkpoint(tiny_model, tmp_path, dtype=torch.float32)
    options = {"image_aspect_ratio": "square", "max_length": 99, "image_root": tmp_path}
    record = conversation(GOOD, ("a.png",))
    assert family.processor(tmp_path, **options).encode(record) == family.processor(tiny_model, **options).encode(
        record
    )


def test_a_saved_config_says_how_pictures_were_prepared(tiny_model, tmp_path):
    import json

    import torch

    family = load_family("mgm")
    family.processor(tiny_model, image_aspect_ratio="square", max_length=77, image_root=tmp_path)
    family.save_checkpoint(tiny_model, tmp_path, dtype=torch.float32)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["image_aspect_ratio"], config["tokenizer_model_max_length"]) == ("square", 77)


def test_tokenizer_errors(tmp_path):
    with pytest.raises(DataError, match="tokenizer not found"):
        TextTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="unreadable tokenizer"):
        TextTokenizer(tmp_path)
