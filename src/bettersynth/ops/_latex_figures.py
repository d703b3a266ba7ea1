"""Figures of a LaTeX source: pictures, caption, label, and the paragraphs that point to them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

_FIGURE = re.compile(r"\\begin\{(figure\*?|wrapfigure)\}.*?\\end\{\1\}", re.DOTALL)
_SUBFIGURE = re.compile(r"\\begin\{subfigure\}.*?\\end\{subfigure\}", re.DOTALL)
_MINIPAGE = re.compile(r"\\begin\{minipage\}(.*?)\\end\{minipage\}", re.DOTALL)
_TITLED = re.compile(r"\\sub(?:figure|float)\[([^\]]*)\]\s*")
_UNTITLED = re.compile(r"\\sub(?:figure|float)(?!\[)\s*")
# Which command a caption is taken from: the first kind that occurs.
_CAPTIONS = (
    re.compile(r"\\caption\*?(?:\[[^\]]*\])?"),
    re.compile(r"\\subcaption(?:\[[^\]]*\])?"),
    re.compile(r"\\captionof\{figure\}(?:\[[^\]]*\])?"),
)
_TABLE_CAPTION = re.compile(r"\\captionof\{table\}(?:\[[^\]]*\])?")
_LABEL = re.compile(r"\\label\{([^}]+)\}")
_PICTURE = re.compile(r"\\includegraphics(?:\[[^\]]*\])?\{([^}]+)\}")
_FLOATS = "figure table tabular equation align alignat gather multline flalign algorithm"
_NO_PROSE = re.compile(
    rf"\\begin\{{((?:{'|'.join(_FLOATS.split())})\*?|wrapfigure|lstlisting|verbatim|minted)\}}.*?\\end\{{\1\}}",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure or one part of it.

    Args:
        pictures: paths as the source writes them. citing: paragraphs that point to it or to the figure it is part of.
        parent_caption, parent_label: of that figure; empty for a figure by itself.
    """

    pictures: tuple[str, ...]
    caption: str
    label: str
    citing: tuple[str, ...] = ()
    parent_caption: str = ""
    parent_label: str = ""


@dataclass(frozen=True, slots=True)
class Citations:
    """Which commands point to a figure, and where paragraphs end."""

    commands: tuple[str, ...]
    separator: str

    def paragraphs(self, source: str) -> list[str]:
        """The prose of a source, without floats, formulas and listings."""
        pieces = _NO_PROSE.sub("", source).split(self.separator)
        return [piece.strip() for piece in pieces if piece.strip()]

    def of(self, label: str, paragraphs: Sequence[str]) -> list[str]:
        """The paragraphs that point to a label, alone or in a list of labels."""
        if not label:
            return []
        points = _pointer(self.commands, label)
        return [paragraph for paragraph in paragraphs if points.search(paragraph)]


@lru_cache(maxsize=4096)
def _pointer(commands: tuple[str, ...], label: str) -> re.Pattern[str]:
    names = "|".join(re.escape(name.lstrip("\\")) for name in commands)
    return re.compile(rf"\\(?:{names})\{{(?:[^}},]*,\s*)*{re.escape(label)}\s*(?:,[^}}]*)?\}}")


def figures_of(source: str, citations: Citations) -> list[Figure]:
    """The figures with pictures, in order; of a figure with parts only the parts."""
    found = []
    paragraphs = None
    for match in _FIGURE.finditer(source):
        whole, parts = _read(match.group())
        if parts and paragraphs is None:
            paragraphs = citations.paragraphs(source)
        for part in parts:
            citing = citations.of(part.label, paragraphs or ())
            above = ("", "")
            if whole is not None:  # equal paragraphs count once here, and only here
                citing = list(dict.fromkeys([*citations.of(whole.label, paragraphs or ()), *citing]))
                above = (whole.caption, whole.label)
            found.append(Figure(part.pictures, part.caption, part.label, tuple(citing), *above))
    return found


def _read(text: str) -> tuple[Figure | None, list[Figure]]:
    """(the figure around its parts, or None; the parts with pictures, or the figure itself) of one environment."""
    blocks = [(match.span(), _caption(match.group()), match.group()) for match in _SUBFIGURE.finditer(text)]
    blocks += [(span, match[1].strip(), inside) for match, span, inside in _commands(_TITLED, text)]
    blocks += [(span, "", inside) for _, span, inside in _commands(_UNTITLED, text)]
    if blocks:
        outside = text
        for start, stop in sorted((span for span, _, _ in blocks), key=lambda span: span[0], reverse=True):
            outside = outside[:start] + outside[stop:]
        parts = [Figure(_pictures(inside), caption, _label(inside)) for _, caption, inside in blocks]
        return Figure((), _caption(outside), _label(outside)), [part for part in parts if part.pictures]
    pages = [match[1] for match in _MINIPAGE.finditer(text)]
    if len(pages) > 1:  # figures side by side, each with a caption of its own
        text_pages = [page for page in pages if next(_commands(_TABLE_CAPTION, page), None) is None]
    else:
        text_pages = [text]
    found = [Figure(_pictures(page), _caption(page), _label(page)) for page in text_pages]
    return None, [figure for figure in found if figure.pictures]


def _commands(head: re.Pattern[str], text: str) -> Iterator[tuple[re.Match[str], tuple[int, int], str]]:
    """Uses of a command: (its head, where it stands, what its braces hold)."""
    at = 0
    while (match := head.search(text, at)) is not None:
        end = _closing(text, match.end())
        at = match.start() + 1 if end is None else end
        if end is not None:
            yield match, (match.start(), end), text[match.end() + 1 : end - 1]


def _closing(text: str, start: int) -> int | None:
    """Behind the brace that closes the one at ``start``; None when there is none."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] == "{":
            depth += 1
        elif text[place] == "}":
            depth -= 1
        if depth == 0:
            return place + 1 if place > start else None
    return None


def _caption(text: str) -> str:
    for head in _CAPTIONS:
        for _, _, inside in _commands(head, text):
            return inside.strip()
    return ""


def _label(text: str) -> str:
    match = _LABEL.search(text)
    return match[1].strip() if match else ""


def _pictures(text: str) -> tuple[str, ...]:
    return tuple(match[1].strip() for match in _PICTURE.finditer(text))
