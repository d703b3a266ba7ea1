"""Splicing, Gemma, loss."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from bettersynth.models.mgm import load
from bettersynth.models.mgm.collate import collate


def test_spliced_labels_and_mask(golden, batch):
    assert torch.equal(batch["labels"], golden["expanded_labels"])
    assert torch.equal(batch["attention_mask"].to(torch.uint8), golden["expanded_attention_mask"])


def test_spliced_embeddings(golden, model, batch, image_tokens, assert_close):
    embeds = model.embed(batch, image_tokens)
    assert_close(embeds, golden["inputs_embeds"])
    assert_close(model.scale(embeds), golden["scaled_first_hidden_state"])


def test_left_padding(golden, model, image_tokens, assert_close):
    left = collate(golden.examples(), [], tokens_per_image=model.config.tokens_per_image, is_left_padded=True)
    assert_close(model.embed(left, image_tokens), golden["left_inputs_embeds"])
    assert torch.equal(left["labels"], golden["left_labels"])
    assert torch.equal(left["attention_mask"].to(torch.uint8), golden["left_attention_mask"])


def test_left_and_right_padding_give_the_same_logits(golden, model, batch, image_tokens, assert_close):
    size = model.config.tokens_per_image
    left = collate(golden.examples(), [], tokens_per_image=size, is_left_padded=True)
    hidden = model.hidden_states(
        model.embed(left, image_tokens), mask=left["attention_mask"].long(), positions=left["position_ids"]
    )
    right = model.hidden_states(model.embed(batch, image_tokens))
    assert_close(model.logits(hidden[left["attention_mask"]]), model.logits(right[batch["attention_mask"]]))


def test_the_originals_silent_cut_can_be_reproduced(golden, model):
    """The processor rejects such samples instead (unit tests); this shows that we know what the original would do."""
    most = golden.json("info.json")["trunc_max_length"]
    cut = collate(golden.examples(), [], tokens_per_image=model.config.tokens_per_image, cut_to=most)
    assert torch.equal(cut["labels"], golden["trunc_labels"])
    assert torch.equal(cut["attention_mask"].to(torch.uint8), golden["trunc_attention_mask"])


def test_hidden_states_and_logits(golden, model, batch, image_tokens, assert_close):
    hidden = model.hidden_states(model.embed(batch, image_tokens))
    real = batch["attention_mask"]
    assert_close(hidden[real], golden["last_hidden_state"][real])
    assert_close(model.logits(hidden)[real], golden["logits"][real])


def test_loss_at_target_positions_only(golden, model, batch, image_tokens):
    output = model.loss(batch, image_tokens)
    assert int(output.num_targets) == int((golden["expanded_labels"][:, 1:] != -100).sum())
    assert abs((output.loss_sum / output.num_targets - golden["loss"]).item()) < 1e-5


def test_loss_equals_cross_entropy_over_all_logits(model, batch, image_tokens):
    logits = model.logits(model.hidden_states(model.embed(batch, image_tokens)))
    wanted = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum")
    assert abs((model.loss(batch, image_tokens).loss_sum - wanted).item()) < 1e-3


def test_tanh_gelu(golden, model, batch, image_tokens, assert_close):
    config = model.config.with_fields(hidden_act="gelu_pytorch_tanh")
    tanh = load.build(config, model.state_dict(), dtype=torch.float32).requires_grad_(False)
    output = tanh.loss(batch, image_tokens)
    assert abs((output.loss_sum / output.num_targets - golden["loss_tanh_gelu"]).item()) < 1e-5
    wanted = golden["logits_tanh_gelu_sample1_last24"]
    logits = tanh.logits(tanh.hidden_states(tanh.embed(batch, image_tokens)))[1:2, -wanted.shape[1] :]
    real = batch["attention_mask"][1:2, -wanted.shape[1] :]
    assert_close(logits[real], wanted[real])
    exact = model.logits(model.hidden_states(model.embed(batch, image_tokens)))[1:2, -wanted.shape[1] :]
    assert (exact - logits)[real].abs().max() > 3e-4, "the test cannot tell the two activations apart"
