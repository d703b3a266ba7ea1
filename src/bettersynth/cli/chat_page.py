"""A small local page to talk with a checkpoint: one picture, one conversation. Needs the ``web`` extra (Gradio)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bettersynth.core.errors import BetterSynthError, MissingExtraError
from bettersynth.core.lang import t


class Talker(Protocol):
    """What the page needs: see :class:`bettersynth.infer.conversation.Conversation`."""

    def answer(self, turns: Sequence[tuple[str, str]], picture: Any = None, **options: Any) -> str:
        """The answer to the last turn."""
        ...


def build_page(talker: Talker, name: str, options: Mapping[str, Any]) -> Any:
    """The page, not yet served.

    Args:
        name: shown on top.
        options: of every answer: ``max_new_tokens``, ``temperature``, ``top_p``, ``stop``, ``seed``.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("the web page"), "web", missing=error.name) from error

    def respond(picture: Any, question: str, messages: list[dict[str, Any]] | None) -> tuple[str, list[dict[str, Any]]]:
        said = list(messages or [])
        if not question.strip():
            return question, said
        turns = [(str(message["role"]), _text(message["content"])) for message in said]
        try:
            answer = talker.answer([*turns, ("user", question)], picture, **options)
        except BetterSynthError as error:
            raise gradio.Error(error.body()) from error
        mine = {"role": "user", "content": question}
        return "", [*said, mine, {"role": "assistant", "content": answer or "…"}]

    with gradio.Blocks(title=name, analytics_enabled=False) as page:  # Gradio reports to its makers otherwise
        gradio.Markdown(f"### {name}")
        with gradio.Row():
            picture = gradio.Image(type="pil", label=t("picture"))
            with gradio.Column():
                said = gradio.Chatbot(label=t("conversation"))
                question = gradio.Textbox(label=t("question"), autofocus=True)
                anew = gradio.Button(t("new conversation"))
        question.submit(respond, [picture, question, said], [question, said])
        # A new picture or the button begins anew: a conversation is about one picture.
        anew.click(list, None, said)
        picture.change(list, None, said)
    return page


def _text(content: Any) -> str:
    """A message's text, which newer versions of Gradio wrap into parts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in content)
    return str(content)


def serve(page: Any, port: int) -> None:
    """Serve the page on this machine only, until it is interrupted; nothing is shared or reported."""
    page.launch(server_name="127.0.0.1", server_port=port, share=False, quiet=True)
