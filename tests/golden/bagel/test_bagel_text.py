"""Prefill and greedy decoding: caches, logits, ids."""

from __future__ import annotations

import pytest
import torch

from bettersynth.models.bagel.context import Context, read_text, read_vit_image
from bettersynth.models.bagel.generate import generate_text

FILE = "infer_text"


def _check_state(golden, context, name, assert_close):
    n = context.length
    assert [n] == golden.tensor(FILE, f"{name}.kv_len").tolist()
    assert [context.next_rope] == golden.tensor(FILE, f"{name}.rope_next").tolist()
    assert_close(context.keys[-1][:n], golden.tensor(FILE, f"{name}.k_cache_last"))
    assert_close(context.values[0][:n], golden.tensor(FILE, f"{name}.v_cache_first"))


def _check_decoding(golden, model, context, name, assert_close, end_id=-1):
    ids = golden.tensor(FILE, f"{name}.greedy_ids").tolist()
    (answer,) = generate_text(model, [context], max_new_tokens=len(ids), end_id=end_id, keeps_logits=True)
    assert [model.config.special.bos, *answer.ids][: len(ids)] == ids
    assert_close(torch.stack(answer.logits), golden.tensor(FILE, f"{name}.logits"))
    return answer


def _prompt(golden, name):
    return golden.tensor(FILE, f"{name}.prompt_ids").tolist()


def test_text(golden, model, assert_close):
    context = Context()
    read_text(model, [context], [_prompt(golden, "text")])
    _check_state(golden, context, "text", assert_close)
    _check_decoding(golden, model, context, "text", assert_close)
    end_id = int(golden.tensor(FILE, "stop.end_token_id"))
    assert _check_decoding(golden, model, context, "stop", assert_close, end_id).is_ended
    read_text(model, [context], [_prompt(golden, "text2")])  # decoding left no trace in the context
    _check_state(golden, context, "text2", assert_close)
    _check_decoding(golden, model, context, "text2", assert_close)


@pytest.mark.parametrize("name", ["und", "und2"])
def test_understanding(golden, model, assert_close, name):
    context = Context()
    read_vit_image(model, context, golden.tensor(FILE, "und.vit_image"))
    _check_state(golden, context, "und_after_image", assert_close)
    if name == "und2":
        read_vit_image(model, context, golden.tensor(FILE, "und2.vit_image_b"))
    read_text(model, [context], [_prompt(golden, "und")])
    _check_state(golden, context, name, assert_close)
    _check_decoding(golden, model, context, name, assert_close)


def test_two_prompts_in_one_batch(golden, model):
    contexts = [Context(), Context()]
    read_text(model, contexts, [golden.tensor(FILE, f"batch2.prompt_{x}").tolist() for x in "ab"])
    wanted = golden.tensor(FILE, "batch2.greedy_ids")
    answers = generate_text(model, contexts, max_new_tokens=len(wanted) - 1, end_id=-1)
    assert [[model.config.special.bos, *answer.ids] for answer in answers] == wanted.T.tolist()
