"""Records to plans: what is read, learnt and droppable; cutting at a segment's border; randomness per sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bettersynth.formats.unified import parse_record
from bettersynth.models.bagel.convert import build_fresh
from bettersynth.models.bagel.packing import Dropout
from bettersynth.models.bagel.processor import UnifiedProcessor
from bettersynth.models.bagel.records import RecordEncoder, UnifiedExample
from bettersynth.models.bagel.resize import ResizeRule
from bettersynth.models.family import Rejected


class Letters:
    """A letter is a token."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 20 for letter in text]


@pytest.fixture
def encoder(tiny: Any, tmp_path: Path) -> RecordEncoder:
    for name, size in (("a", (12, 8)), ("b", (28, 28)), ("wide", (60, 8))):
        Image.fromarray(np.full((*size[::-1], 3), 90, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "cut.png").write_bytes(b"none")
    rules = (ResizeRule(24, 8, 4), ResizeRule(56, 14, 14))
    return RecordEncoder(tiny, Letters(), tmp_path, *rules, max_length=100)  # type: ignore[arg-type]


def _turns(*turns: tuple[str, str]) -> Any:
    """``("u", "text")``, or ``("a", "x.png")`` for a picture."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    made = []
    for role, value in turns:
        key = "image_path" if value.endswith(".png") else "content"
        made.append({"role": roles[role], "type": "image" if key == "image_path" else "text", key: value})
    return parse_record({"id": "r", "conversations": made})


def _shown(example: Any) -> list[str]:
    assert isinstance(example, UnifiedExample), example
    return [item.type + ("*" if item.loss else "") + ("?" if item.enable_cfg else "") for item in example.sample.plan]


def test_plans_of_all_kinds(encoder: RecordEncoder) -> None:
    drawn = encoder.encode(parse_record({"text_prompt": "ab", "image_path": "a.png"}))
    assert _shown(drawn) == ["text?", "vae_image*"]
    assert (drawn.num_text_targets, drawn.num_image_targets, drawn.kind) == (0, 6, "image")
    assert drawn.num_tokens == 4 + 8 == drawn.sample.num_tokens(encoder.config)
    told = encoder.encode(_turns(("u", "b.png"), ("u", "?"), ("a", "cat")))
    assert _shown(told) == ["vit_image", "text", "text*"]
    assert (told.num_text_targets, told.num_vit, told.num_vae) == (4, 4, 0)
    assert told.text_weight == pytest.approx(2.0)
    edit = encoder.encode(_turns(("s", "x"), ("u", "a.png"), ("u", "y"), ("a", "b.png")))
    assert _shown(edit) == ["text?", "vae_image?", "vit_image?", "text?", "vae_image*"]
    story = encoder.encode(_turns(("u", "t"), ("a", "a"), ("a", "a.png"), ("a", "b"), ("a", "a.png")))
    assert _shown(story) == ["text?", "text*", "vae_image*", "vae_image?", "vit_image?", "text*", "vae_image*"]
    assert story.kind == "mixed"
    assert _shown(encoder.encode(_turns(("a", "plain"), ("u", "never read")))) == ["text*"]


def test_closing_markers_learn_what_comes_next(encoder: RecordEncoder, tiny: Any) -> None:
    taught = RecordEncoder(**{**_fields(encoder), "learn_next_kind": True})
    example = taught.encode(_turns(("u", "t"), ("a", "a"), ("a", "a.png")))
    labels = [item.special_token_label for item in example.sample.plan]
    special = tiny.special
    assert _shown(example) == ["text?", "text*", "vae_image*", "vae_image", "vit_image"]
    assert labels == [special.bos, special.image_start, None, None, special.eos]
    assert example.num_text_targets == 2 + 3


def _fields(encoder: RecordEncoder) -> dict[str, Any]:
    return {name: getattr(encoder, name) for name in RecordEncoder.__dataclass_fields__}


def test_long_records_are_cut_at_a_segment_and_counted(encoder: RecordEncoder) -> None:
    record = _turns(("u", "t"), ("a", "x" * 30), ("u", "again"), ("a", "y" * 30), ("u", "more"), ("a", "z" * 40))
    example = encoder.encode(record)
    assert isinstance(example, UnifiedExample) and example.num_tokens <= 100
    assert (example.num_cut, len(example.sample.plan)) == (2, 4)
    short = RecordEncoder(**{**_fields(encoder), "max_length": 20})
    refused = short.encode(record)
    assert isinstance(refused, Rejected) and refused.reason == "too_long" and "at most 20" in refused.detail


@pytest.mark.parametrize(("name", "reason"), [("gone.png", "bad_image"), ("cut.png", "bad_image")])
def test_missing_and_damaged_pictures_are_named(encoder: RecordEncoder, name: str, reason: str) -> None:
    refused = encoder.encode(parse_record({"text_prompt": "a", "image_path": name}))
    assert isinstance(refused, Rejected) and refused.reason == reason and name in refused.detail


def test_a_table_of_positions_that_is_too_small_is_refused_before_training(encoder: RecordEncoder) -> None:
    wide = RecordEncoder(**{**_fields(encoder), "vae_rule": ResizeRule(60, 8, 4)})
    refused = wide.encode(parse_record({"text_prompt": "a", "image_path": "wide.png"}))
    assert isinstance(refused, Rejected) and refused.reason == "bad_size" and "6 positions" in refused.detail


def test_a_samples_random_numbers_do_not_depend_on_its_pack(encoder: RecordEncoder, tiny: Any) -> None:
    model = build_fresh(tiny, seed=3)
    model.llm2vae.weight.data.normal_(std=0.3)
    processor = UnifiedProcessor(encoder, model.autoencoder, 5, Dropout(0.5, 0.5, 0.5))
    records = [
        parse_record({"text_prompt": "ab", "image_path": "b.png"}),
        _turns(("u", "b.png"), ("u", "?"), ("a", "cat")),
        _turns(("u", "a.png"), ("u", "y"), ("a", "b.png"), ("a", "so")),
    ]
    examples = [encoder.encode(record) for record in records]
    pixels = [processor.load_pixels(example) for example in examples]
    for step in range(6):
        both = model.losses(processor.collate_step(step, [4, 7, 9], examples, pixels))
        alone = [
            model.losses(processor.collate_step(step, [n], [e], [p]))
            for n, e, p in zip([4, 7, 9], examples, pixels, strict=True)
        ]
        assert torch.allclose(both.ce, torch.cat([joint.ce for joint in alone]), atol=1e-5)
        assert torch.allclose(both.mse, torch.cat([joint.mse for joint in alone]), atol=1e-4)
    first, again = (processor.collate_step(step, [4], examples[:1], pixels[:1])["noise"] for step in (0, 1))
    assert not torch.equal(first, again)
