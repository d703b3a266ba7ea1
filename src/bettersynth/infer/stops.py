"""Texts at which an answer ends, as OpenAI's ``stop`` has them: the answer holds what stands before the first one."""

from __future__ import annotations

from collections.abc import Sequence


def cut_at(text: str, stops: Sequence[str], *, behind: str = "") -> str:
    """The text up to the first of the stop strings.

    Args:
        behind: only what follows the first of these marks is looked at; a text without it is left whole.

    >>> cut_at("red.\\n\\nblue", ["\\n\\n", ""])
    'red.'
    >>> cut_at("a. b</think>c. d", ["."], behind="</think>")
    'a. b</think>c'
    """
    head, mark, rest = text.partition(behind) if behind else ("", "", text)
    if behind and not mark:
        return text
    return head + mark + min((rest.partition(stop)[0] for stop in stops if stop), key=len, default=rest)


def settled(text: str, stops: Sequence[str]) -> str:
    """The text without an ending that may turn out to begin a stop string: what can be said already.

    >>> settled("red.\\n", ["\\n\\n"])
    'red.'
    """
    held = (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
    return text[: len(text) - max(held, default=0)]
