"""Talking with a checkpoint: single questions, the terminal loop, and the page over a stand-in of Gradio."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from bettersynth.cli.chat_page import build_page, serve
from bettersynth.core.errors import DataError
from bettersynth.infer.conversation import Conversation, _Stream

CHECKPOINT = Path(__file__).resolve().parents[2] / "golden" / "data" / "mgm_a" / "checkpoint"
pytestmark = pytest.mark.skipif(not CHECKPOINT.is_dir(), reason="no golden checkpoint")
SHORT = ("--max-new-tokens", 4)


@pytest.fixture(scope="module")
def talker() -> Conversation:
    return Conversation(CHECKPOINT, device="cpu")


@pytest.fixture
def picture(tmp_path) -> Path:
    Image.new("RGB", (40, 30), (9, 200, 9)).save(tmp_path / "green.png")
    return tmp_path / "green.png"


def test_one_question_is_answered_as_the_evaluation_does(call, picture):
    from bettersynth.core.sample import ImageRef
    from bettersynth.infer.checkpoint import CheckpointChatModel
    from bettersynth.infer.protocols import ChatRequest, Decoding

    (wanted,) = CheckpointChatModel(CHECKPOINT).generate(
        [ChatRequest("k", "What?", ImageRef(str(picture)))], Decoding(4)
    )
    words = ("chat", CHECKPOINT, "--image", picture, "--ask", "What?", *SHORT)
    assert call(*words).out.strip() == (wanted.text or "…")
    turns = call(*words, "--ask", "Sure?", "--json").data["turns"]
    assert [turn[0] for turn in turns] == ["user", "assistant"] * 2 and turns[1][1] == (wanted.text or "…")


def test_pieces_add_up_and_seeds_decide(talker, picture):
    pieces: list[str] = []
    turns = [("user", "What is <image> this?")]  # a tag in a question is text
    whole = talker.answer(turns, picture, max_new_tokens=6, say=pieces.append)
    assert "".join(pieces).strip().endswith(whole)
    sampled = [talker.answer(turns, picture, max_new_tokens=6, temperature=2.0, seed=seed) for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert isinstance(talker.answer([("user", "no picture")], max_new_tokens=3), str)
    with pytest.raises(DataError):
        talker.answer([("user", "")])


def test_top_p_and_stop_strings(talker, picture):
    turns = [("user", "What is this?")]
    whole = talker.answer(turns, picture, max_new_tokens=6)
    options = {"max_new_tokens": 6, "temperature": 5.0, "seed": 1}
    assert talker.answer(turns, picture, top_p=1e-6, **options) == whole != talker.answer(turns, picture, **options)
    stop = whole[2:4]
    pieces: list[str] = []
    cut = talker.answer(turns, picture, max_new_tokens=6, stop=[stop], say=pieces.append)
    assert cut == whole[: whole.index(stop)] == "".join(pieces).strip()


def test_nothing_of_a_stop_string_is_said():
    import torch

    said: list[str] = []
    stream = _Stream(lambda ids: "ab\n\nc"[: len(ids)], said.append, ["\n\n"])
    stream.put(torch.tensor([[5]]))
    for token in range(5):
        stream.put(torch.tensor([token]))
    stream.end()
    assert said == ["a", "b", "", "", "", ""]


def test_half_characters_wait_for_the_rest():
    import torch

    said: list[str] = []
    stream = _Stream(
        lambda ids: {1: "a", 2: "a\N{REPLACEMENT CHARACTER}", 3: "a\N{CJK UNIFIED IDEOGRAPH-7EA2}"}[len(ids)],
        said.append,
    )
    stream.put(torch.tensor([[5, 6, 7]]))
    for token in (1, 2, 3):
        stream.put(torch.tensor([token]))
    stream.end()
    assert said == ["a", "\N{CJK UNIFIED IDEOGRAPH-7EA2}", ""]


class Talker:
    """Says what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def answer(self, turns, picture=None, *, say=None, **options):
        if turns[-1][1] == "bad":
            raise DataError("this cannot be answered")
        self.calls.append((list(turns), picture, options))
        text = f"{len(turns)} {turns[-1][1]}"
        if say is not None:
            say(text)
        return text


def test_the_terminal_loop(call, picture, monkeypatch):
    talker = Talker()
    monkeypatch.setattr("bettersynth.infer.conversation.Conversation", lambda *a, **k: talker)
    lines = [
        "one",
        "",
        "two",
        "bad",
        "/new",
        "three",
        "/image nowhere.png",
        f"/image {picture}",
        "four",
        "/what",
        "/quit",
        "x",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    done = call("chat", CHECKPOINT)
    assert done.out.splitlines() == ["1 one", "3 two", "1 three", "1 four"]
    assert "cannot be answered" in done.err and "image not found: /image nowhere.png" in done.err
    assert "no such command: /what" in done.err
    assert [call[1] for call in talker.calls] == [None, None, None, picture]
    assert talker.calls[0][2] == {"max_new_tokens": 256, "temperature": 0.0, "seed": 0, "top_p": 1.0, "stop": []}


def test_what_is_refused(call, picture, tmp_path, monkeypatch):
    assert "no checkpoint here" in call("chat", tmp_path, expect=1).err
    assert "image not found" in call("chat", CHECKPOINT, "--image", "gone.png", expect=1).err
    assert "unsupported value" in call("chat", CHECKPOINT, "--temperature", "-1", expect=2).err
    assert "0 < P" in call("chat", CHECKPOINT, "--temperature", "1", "--top-p", "0", expect=2).err
    assert "--temperature" in call("chat", CHECKPOINT, "--top-p", "0.5", expect=2).err
    assert "--stop" in call("chat", CHECKPOINT, "--stop", "", expect=2).err
    assert "--ask TEXT" in call("chat", CHECKPOINT, "--json", expect=2).err
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "bettersynth[web]" in call("chat", CHECKPOINT, "--web", expect=2).err


# ---------------------------------------------------------------- the page


class Part:
    """A stand-in for every part of a Gradio page: notes what it is wired to."""

    def __init__(self, *args, **options) -> None:
        self.args, self.options, self.wired = args, options, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def _wire(self, function, inputs=None, outputs=None):
        self.wired.append((function, inputs, outputs))

    submit = click = change = _wire

    def launch(self, **options):
        self.launched = options


def test_the_page_talks_and_stays_on_this_machine(monkeypatch):
    made: dict[str, Part] = {}
    gradio = types.ModuleType("gradio")
    for name in ("Blocks", "Row", "Column", "Markdown", "Image", "Chatbot", "Textbox", "Button"):
        setattr(gradio, name, lambda *a, _name=name, **k: made.setdefault(_name, Part(*a, **k)))
    gradio.Error = type("Error", (Exception,), {})
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    talker = Talker()
    page = build_page(talker, "mine", {"max_new_tokens": 9, "temperature": 0.0, "seed": 0})
    respond, inputs, outputs = made["Textbox"].wired[0]
    assert inputs == [made["Image"], made["Textbox"], made["Chatbot"]] and outputs == [made["Textbox"], made["Chatbot"]]
    box, said = respond("pixels", "What?", [])
    assert box == "" and said == [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "1 What?"}]
    said[1]["content"] = [{"type": "text", "text": "red"}]  # how newer versions hand it back
    _, said = respond("pixels", "Sure?", said)
    assert talker.calls[-1] == (
        [("user", "What?"), ("assistant", "red"), ("user", "Sure?")], "pixels",
        {"max_new_tokens": 9, "temperature": 0.0, "seed": 0},
    )  # fmt: skip
    assert respond(None, "  ", said) == ("  ", said)
    with pytest.raises(gradio.Error, match="cannot be answered"):
        respond(None, "bad", None)
    assert made["Image"].wired[0][0]() == [] and made["Button"].wired[0][0]() == []
    serve(page, 1234)
    assert made["Blocks"].options["analytics_enabled"] is False
    assert made["Blocks"].launched["server_name"] == "127.0.0.1" and made["Blocks"].launched["share"] is False
