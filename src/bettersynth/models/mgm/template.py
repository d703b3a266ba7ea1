"""The "gemma" conversation template: turns to one string, and which characters of it are learnt.

One round, bytes exactly::

    <start_of_turn>user\\n{human}<end_of_turn>\\n<start_of_turn>model\\n{answer}<end_of_turn>\\n<eos>

Rounds follow each other directly. The learnt part of a round begins after the model header and includes
``<end_of_turn>\\n<eos>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bettersynth.core.lang import t
from bettersynth.core.sample import LLAVA_IMAGE

Turn = tuple[str, str]
"""(role, text) with role ``human`` or ``gpt``."""

HUMAN, GPT = "human", "gpt"
USER_HEADER = "<start_of_turn>user\n"
MODEL_HEADER = "<start_of_turn>model\n"
END_OF_TURN = "<end_of_turn>"
EOS = "<eos>"
CONTROL_TOKENS = ("<start_of_turn>", END_OF_TURN, EOS, "<bos>", "<pad>", "<unk>")
"""Text that would steer the model if it stood in a message: the tokenizer turns it into special tokens."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation: the string without BOS, and the learnt character ranges, one per answer."""

    text: str
    targets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a conversation cannot be learnt from."""

    reason: str
    detail: str


def normalise_tags(turns: Iterable[Turn], *, is_collapsing: bool = False) -> list[Turn]:
    """Move image tags to the front of their turn, each followed by a newline.

    Args:
        turns: of a record that has a picture.
        is_collapsing: several tags of a turn become one, as in the original, which then feeds one picture for several
            tags. By default their number is kept.

    >>> normalise_tags([("human", "look <image> here"), ("gpt", "ok")])
    [('human', '<image>\\nlook  here'), ('gpt', 'ok')]
    """
    normalised = []
    for role, text in turns:
        count = text.count(LLAVA_IMAGE)
        if count:
            tags = (LLAVA_IMAGE + "\n") * (1 if is_collapsing else count)
            text = (tags + text.replace(LLAVA_IMAGE, "").strip()).strip()
        normalised.append((role, text))
    return normalised


def drop_leading_answer(turns: Sequence[Turn]) -> list[Turn]:
    """A conversation that begins with the model loses that first message, as in the original."""
    return list(turns[1:] if turns and turns[0][0] == GPT else turns)


def render(turns: Sequence[Turn]) -> Prompt:
    """Render alternating human/gpt turns that have passed :func:`refusal`."""
    text = ""
    targets = []
    for role, value in turns:
        if role == HUMAN:
            text += f"{USER_HEADER}{value}{END_OF_TURN}\n"
        else:
            start = len(text) + len(MODEL_HEADER)
            text += f"{MODEL_HEADER}{value}{END_OF_TURN}\n{EOS}"
            targets.append((start, len(text)))
    return Prompt(text, tuple(targets))


def render_question(text: str) -> str:
    """The string up to and including the model header: what is generated from."""
    return f"{USER_HEADER}{text}{END_OF_TURN}\n{MODEL_HEADER}"


def refusal(turns: Sequence[Turn]) -> Refusal | None:
    """Why these turns (tags normalised, leading answer dropped) cannot be rendered, or None.

    The original masks such a record as a whole, stops, or swaps it for another one; here it is named and counted.
    """
    if not turns:
        return Refusal("no_turns", t("the conversation is empty"))
    for index, (role, _) in enumerate(turns):
        expected = (HUMAN, GPT)[index % 2]
        if role != expected:
            return Refusal(
                "bad_roles", t("turn {n} is said by '{got}' instead of '{role}'", n=index, got=role, role=expected)
            )
    if turns[-1][0] == HUMAN:
        return Refusal("ends_with_human", t("the last question has no answer"))
    for index, (role, text) in enumerate(turns):
        if not text:
            reason = "empty_question" if role == HUMAN else "empty_answer"
            return Refusal(reason, t("turn {n} is empty", n=index))
        found = next((token for token in CONTROL_TOKENS if token in text), None)
        if found:
            return Refusal("special_token_in_text", t("turn {n} holds the control token {token}", n=index, token=found))
    return None


def image_refusal(turns: Sequence[Turn], num_images: int) -> Refusal | None:
    """Why the tags of a record do not fit its pictures, or None."""
    tags = sum(text.count(LLAVA_IMAGE) for _, text in turns)
    if any(LLAVA_IMAGE in text for role, text in turns if role == GPT):
        return Refusal("image_in_answer", t("an answer holds an image tag"))
    if tags and not num_images:
        return Refusal("image_tag_without_image", t("{tags} image tags but no picture", tags=tags))
    if tags != num_images:
        return Refusal("image_count", t("{tags} image tags for {images} pictures", tags=tags, images=num_images))
    return None
