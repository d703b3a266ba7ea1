"""Whether a request asks for a picture, told from its words: the decision rule beside the learned one.

The published weights never begin a picture by themselves, so something else has to. The rule is a list of patterns,
English and Chinese, tried in order; the first that fits decides and its words are given as the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "image"]
IMAGE_MARK = "<image>"
"""Where it stands in a text that the model writes, a picture is drawn there."""

_PICTURE = (
    r"(?:images?|pictures?|photos?|photographs?|drawings?|paintings?|illustrations?|sketch(?:es)?|posters?|logos?|icons?|"
    r"portraits?|wallpapers?|diagrams?)"
)
_EDIT_VERBS = (
    "add|adjust|blur|brighten|change|colou?r|convert|crop|darken|delete|edit|enlarge|erase|fill|flip|make|mirror|modify|"
    "move|paint|put|recolou?r|redraw|remove|repaint|replace|restore|restyle|rotate|sharpen|shrink|swap|transform|turn"
)
_POLITE = (
    r"(?:please\s+|now\s+|then\s+|and\s+|(?:can|could|would|will)\s+you\s+(?:please\s+)?|"
    r"i\s+(?:want|would like|need)\s+(?:you\s+)?(?:to\s+)?|let'?s\s+)*"
)


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: re.Pattern[str]
    kinds: tuple[Kind, ...]
    name: str
    with_picture: bool | None = None


def _pattern(name: str, kinds: tuple[Kind, ...], regex: str, *, with_picture: bool | None = None) -> _Pattern:
    return _Pattern(re.compile(regex, re.IGNORECASE), kinds, name, with_picture)


_PATTERNS = (
    _pattern(
        "a text with pictures",
        ("text", "image"),
        rf"\b(?:story|tutorial|recipe|guide|article|explain|describe|answer|tell|write)\b.*\b(?:with|and)\b[\w\s]*\b"
        rf"(?:{_PICTURE}|draw|illustrate|paint|show)\b",
    ),
    _pattern("a text with pictures", ("text", "image"), r"(?:图文并茂|配图|并画|并生成.{0,8}图)"),
    _pattern(
        "a request to draw", ("image",), rf"^\s*{_POLITE}(?:draw|paint|sketch|illustrate|render|imagine|depict)\b"
    ),
    _pattern(
        "a request for a picture",
        ("image",),
        rf"\b(?:generate|create|make|produce|design|show|give|synthesi[sz]e)\b[^.?!]{{0,60}}?\b{_PICTURE}\b",
        with_picture=False,
    ),
    _pattern(
        "a request for a picture",
        ("image",),
        rf"\b(?:generate|create|produce|design|synthesi[sz]e)\b.{{0,60}}\b{_PICTURE}\b",
    ),
    _pattern("a request for a picture", ("image",), r"(?:画|绘制|生成|创作|制作|来).{0,12}?(?:图|照片|画|插画|海报)"),
    _pattern("a request to draw", ("image",), r"^\s*(?:请|请你|帮我|给我)*(?:画|绘)"),
    _pattern("a request to edit", ("image",), rf"^\s*{_POLITE}(?:{_EDIT_VERBS})\b", with_picture=True),
    _pattern("a request to edit", ("image",), r"(?:把|将).+(?:改|换|变|去掉|删|移|加)", with_picture=True),
    _pattern(
        "a request to edit", ("image",), r"^\s*(?:请)?(?:去掉|删除|添加|加上|替换|移除|改成|换成)", with_picture=True
    ),
    _pattern("a question", ("text",), r"[?？]\s*$"),
    _pattern(
        "a question",
        ("text",),
        r"^\s*(?:what|which|who|whose|where|when|why|how|is|are|was|were|do|does|did|can|could|should|has|have)\b",
    ),
    _pattern(
        "a request for text",
        ("text",),
        r"^\s*(?:please\s+)?(?:answer|caption|compare|count|define|describe|explain|identify|list|name|read|say|solve|"
        r"summari[sz]e|tell|translate|transcribe|write|give|provide|present|offer|share)\b",
    ),
    _pattern("a request for text", ("text",), r"(?:描述|解释|什么|多少|哪|为什么|怎么|吗|回答|翻译|总结|写)"),
    _pattern(
        "a description of a picture",
        ("image",),
        rf"^\s*(?:an?|the|one|two|three|four|five|six|several|some|{_PICTURE})\s+\S",
        with_picture=False,
    ),
)


def kinds_by_words(prompt: str, *, has_picture: bool) -> tuple[tuple[Kind, ...], str]:
    """What to answer with, in order, and why.

    Args:
        prompt: the text that came last.
        has_picture: whether a picture came with it (then it may be edited, and a plain phrase is no description).

    >>> kinds_by_words("Draw a red cat", has_picture=False)
    (('image',), 'a request to draw: "Draw"')
    >>> kinds_by_words("What is this?", has_picture=True)[0]
    ('text',)
    """
    for pattern in _PATTERNS:
        if pattern.with_picture is not None and pattern.with_picture != has_picture:
            continue
        found = pattern.regex.search(prompt)
        if found:
            return pattern.kinds, f'{pattern.name}: "{found.group(0).strip()}"'
    return ("text",), "no word asks for a picture"
