from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bettersynth.models.mgm.template import normalise_tags, refusal, render, render_question

_TEXT = st.text(alphabet="ab \n", min_size=1, max_size=8).filter(str.strip)


def test_one_round_byte_for_byte():
    prompt = render([("human", "hi"), ("gpt", "yo")])
    assert prompt.text == ("<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nyo<end_of_turn>\n<eos>")
    assert prompt.text.startswith(render_question("hi"))


@given(rounds=st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=4))
def test_targets_are_exactly_the_answers(rounds):
    turns = [turn for human, gpt in rounds for turn in (("human", human), ("gpt", gpt))]
    assert refusal(turns) is None
    prompt = render(turns)
    assert [prompt.text[a:b] for a, b in prompt.targets] == [f"{gpt}<end_of_turn>\n<eos>" for _, gpt in rounds]


def test_tags_move_to_the_front():
    assert normalise_tags([("human", "a <image> b <image>")]) == [("human", "<image>\n<image>\na  b")]
    assert normalise_tags([("human", "a <image> b <image>")], is_collapsing=True) == [("human", "<image>\na  b")]
    assert normalise_tags([("human", "<image>")]) == [("human", "<image>")]
    assert normalise_tags([("gpt", " kept as is ")]) == [("gpt", " kept as is ")]
