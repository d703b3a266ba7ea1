"""A tree of HTML as it was written: nothing is moved or closed for the author, as Beautiful Soup does with html.parser.

Tags that are left open hold all that follows; a closing tag closes what was opened inside it; one that closes nothing
is left out. Browsers (and Lexbor) make something else of broken tables; this is what Data-Juicer's operators see.
"""

from __future__ import annotations

import html
import html.entities
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset(
    """area base br col embed hr img input keygen link menuitem meta param source track wbr basefont bgsound command
    frame image isindex nextid spacer""".split()  # noqa: SIM905
)
_VERBATIM = ("pre", "textarea")
_NOT_SHOWN = ("style", "script", "template", "rt", "rp")
_RAW = ("style", "script")
_LISTS = {
    "*": ("class", "accesskey", "dropzone"),
    "a": ("rel", "rev"),
    "link": ("rel", "rev"),
    "td": ("headers",),
    "th": ("headers",),
    "form": ("accept-charset",),
    "object": ("archive",),
    "area": ("rel",),
    "icon": ("sizes",),
    "iframe": ("sandbox",),
    "output": ("for",),
}
_BLANKS = " \n\t\f\r"


@dataclass(slots=True)
class Text:
    """A piece of text. ``around``: the markup of comments and the like. ``is_shown``: False for what is no prose."""

    text: str
    is_shown: bool
    around: tuple[str, str] = ("", "")


@dataclass(slots=True)
class Element:
    """A tag and what it holds."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | Text] = field(default_factory=list)

    def inside(self) -> Iterator[Element]:
        """All elements inside, in the order in which they begin."""
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child.inside()

    def direct(self, *names: str) -> list[Element]:
        """The children of some names."""
        return [child for child in self.children if isinstance(child, Element) and child.name in names]

    def text(self) -> str:
        """What is shown, every piece without outer white space, put together."""
        parts = []
        for child in self.children:
            if isinstance(child, Element):
                parts.append(child.text())
            elif child.is_shown:
                parts.append(child.text.strip())
        return "".join(parts)

    def markup(self) -> str:
        """The element as HTML, attributes in alphabetical order."""
        shown = "".join(f" {name}={_quoted(self._value(name))}" for name in sorted(self.attributes))
        if not self.children and self.name in _VOID:
            return f"<{self.name}{shown}/>"
        inside = "".join(
            child.markup() if isinstance(child, Element) else _written(child, is_raw=self.name in _RAW)
            for child in self.children
        )
        return f"<{self.name}{shown}>{inside}</{self.name}>"

    def _value(self, name: str) -> str:
        value = self.attributes[name]
        if name in _LISTS["*"] or name in _LISTS.get(self.name, ()):
            return " ".join(value.split())
        return value


def parse(text: str) -> Element:
    """The tree of a text; its root has no name."""
    builder = _Builder()
    builder.feed(text)
    builder.close()
    builder.end_text()
    return builder.open[0]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(value: str) -> str:
    value = _escaped(value)
    if '"' not in value:
        return f'"{value}"'
    return f"'{value}'" if "'" not in value else '"' + value.replace('"', "&quot;") + '"'


def _written(part: Text, *, is_raw: bool) -> str:
    if part.around != ("", ""):
        return part.around[0] + part.text + part.around[1]
    return part.text if is_raw else _escaped(part.text)


class _Builder(HTMLParser):
    """Puts the tree together."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.open = [Element("")]
        self.names: Counter[str] = Counter()
        self.closed_void: Counter[str] = Counter()
        self.pieces: list[str] = []

    def end_text(self, around: tuple[str, str] = ("", ""), *, is_shown: bool = True) -> None:
        """Turn the pieces of text so far into one; white space alone becomes one character, outside of ``pre``."""
        if not self.pieces:
            return
        text = "".join(self.pieces)
        self.pieces.clear()
        if not text.strip(_BLANKS) and not any(self.names[name] for name in _VERBATIM):
            text = "\n" if "\n" in text else " "
        is_shown = is_shown and not any(self.names[name] for name in _NOT_SHOWN)
        self.open[-1].children.append(Text(text, is_shown, around))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._begin(tag, attrs)
        if tag in _VOID:
            self._end(tag)
            self.closed_void[tag] += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._begin(tag, attrs)
        self._end(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.closed_void[tag]:
            self.closed_void[tag] -= 1  # <br></br> is one element
        else:
            self._end(tag)

    def _begin(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.end_text()
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(made)
        self.open.append(made)
        self.names[tag] += 1

    def _end(self, tag: str) -> None:
        self.end_text()
        while self.names[tag]:
            closed = self.open.pop()
            self.names[closed.name] -= 1
            if closed.name == tag:
                return

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def handle_charref(self, name: str) -> None:
        digits = name[1:] if name[:1] in "xX" else name
        kept = 0
        while kept < len(digits) and digits[kept].lower() in ("0123456789abcdef" if digits != name else "0123456789"):
            kept += 1
        start = name[: len(name) - len(digits)]
        self.pieces += [html.unescape(f"&#{start}{digits[:kept]};") if kept else "", digits[kept:]]

    def handle_entityref(self, name: str) -> None:
        self.pieces.append(html.entities.html5.get(f"{name};", f"&{name}"))

    def _special(self, text: str, before: str, after: str, *, is_shown: bool = False) -> None:
        self.end_text()
        self.pieces.append(text)
        self.end_text((before, after), is_shown=is_shown)

    def handle_comment(self, data: str) -> None:
        self._special(data, "<!--", "-->")

    def handle_decl(self, decl: str) -> None:
        self._special(decl[len("DOCTYPE ") :], "<!DOCTYPE ", ">\n")

    def unknown_decl(self, data: str) -> None:
        if data.upper().startswith("CDATA["):
            self._special(data[len("CDATA[") :], "<![CDATA[", "]]>", is_shown=True)
        else:
            self._special(data, "<?", "?>")

    def handle_pi(self, data: str) -> None:
        self._special(data, "<?", ">")
