"""ftfy's repairs, each step guarded by a quick test that it has nothing to do.

The steps, their order and their tables are ftfy's own (6.3, read from the installed package); only the tests before
them are ours. A test may send a text on in vain, but never holds back one that a step would change:

* Mojibake. ftfy repairs an encoding only where its "badness" expression matches. Each of its alternatives needs a C1
  control, one of the letters in ``_ALONE``, or two neighbours that both are outside ASCII and named in it.
* Character repairs (ligatures, widths, quotes, line breaks, control characters) go one character at a time, apart from
  CR LF and terminal escapes, so a table says which characters they touch.
* Normal forms. A text of characters with combining class 0 that are normal by themselves and never join with the one
  before is normal (Unicode Standard Annex 15, quick check).

Source: ftfy 6.3 (Speer, 2019), Apache 2.0; algorithm of ``fix_and_explain``.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from bisect import bisect
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import and_
from typing import Any, Literal

from bettersynth.ops._text_codes import CharTable

Form = Literal["NFC", "NFKC", "NFD", "NFKD"]
NONE, TOUCHED, PAIRED = 0, 1, 2
_ALONE = "\u0152\u0153\u00c2\u00c3"  # ligatures OE and oe, A with circumflex and tilde: bad next to ASCII
_LONG = 100_000  # characters; ftfy cuts segments of a million in pieces
# Blocks without characters that join with the one before: before the Hangul jamo (marks aside), CJK, Hangul syllables,
# and symbols of the supplementary plane.
_NEVER_JOIN = (
    *(0x80, 0x0900, 0x1E00, 0x302A, 0x3040, 0x3099, 0x309D, 0xA000),
    *(0xAC00, 0xD7A4, 0x1F000, 0x1FB00),
)


# Every alternative of the badness expression has a character outside ASCII among its first three, and is at most six
# long. Around such characters the search gets more room than that.
_BEFORE = 4
_RARE = re.compile("[^\x00-\x19\x1b-\x7f]")  # every encoding that ftfy tries holds the others
# Bytes that stand for one character with a space among them need a byte above 127 before the space; those in which one
# is lost, a question mark or what ftfy's own encodings write for the replacement character.
_HIGH_SPACE = re.compile("[^\x00-\x7f] ")
_LOST = ("?", "\ufffd")
_NEAR = re.compile("[^\x00-\x7f](?:[\x00-\x7f]{0,11}[^\x00-\x7f])*[\x00-\x7f]{0,8}")


@dataclass(frozen=True, slots=True)
class _Tables:
    """What ftfy would do, by character."""

    translation: dict[str, str]
    touched: re.Pattern[str]
    named: frozenset[str]
    suspect: re.Pattern[str]


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    from ftfy import badness, chardata, fixes

    keys = {*chardata.LIGATURES, *chardata.WIDTH_MAP, *chardata.CONTROL_CHARS, 0x0D, 0x85, 0x2028, 0x2029, 0x2BC}
    keys.update(range(0x2018, 0x2020))
    steps = (
        *(fixes.fix_latin_ligatures, fixes.fix_character_width, fixes.uncurl_quotes, fixes.fix_line_breaks),
        fixes.remove_control_chars,
    )
    translation = {}
    for key in keys:
        text = chr(key)
        for step in steps:
            text = step(text)
        translation[key] = text
    # In a class "a-b" is a range; the marks of the verbose pattern itself are ASCII, so they do not count.
    classes = "".join(badness.MOJIBAKE_CATEGORIES.values())
    literal = "".join(sorted(set(badness.BADNESS_RE.pattern) - {"-"}))
    paired = re.compile(f"[{classes}{re.escape(literal)}]")
    named = frozenset(paired.findall("".join(map(chr, range(0x80, 0x10000)))))
    inside = re.escape("".join(sorted(named)))
    # One class in front, so that the search skips ordinary characters fast.
    suspect = re.compile(f"[\x80-\x9f{_ALONE}{inside}](?:(?<=[\x80-\x9f{_ALONE}])|[{inside}])")
    changed = {chr(key): text for key, text in translation.items() if text != chr(key)}
    return _Tables(changed, re.compile(f"[{re.escape(''.join(sorted(changed)))}]"), named, suspect)


def may_be_mojibake(text: str) -> bool:
    """False only where ftfy's badness expression has no match."""
    return not text.isascii() and _tables().suspect.search(text) is not None


def is_inert(character: str, form: Form) -> bool:
    """Whether a character is normal in every neighbourhood; False when in doubt."""
    return (
        bisect(_NEVER_JOIN, ord(character)) % 2 == 1  # first, stop, first, stop, ...
        and unicodedata.combining(character) == 0
        and unicodedata.category(character)[0] != "M"
        and unicodedata.is_normalized(form, character)
    )


@lru_cache(maxsize=4)
def fix_table(form: Form) -> CharTable:
    """For each character: TOUCHED when a repair may change a text for its sake alone, PAIRED when two in a row may."""

    def value(character: str) -> int:
        code = ord(character)
        if code < 0x80:  # terminal escapes and entities begin with ASCII; asked without loading ftfy
            return TOUCHED if character == "&" or (not character.isprintable() and character not in "\t\n\f") else NONE
        tables = _tables()
        if code < 0xA0 or character in _ALONE or character in tables.translation or not is_inert(character, form):
            return TOUCHED
        return PAIRED if character in tables.named else NONE

    return CharTable(value)


def fix(text: str, form: Form) -> str:
    """``ftfy.fix_text(text, normalization=form)``."""
    if len(text) > _LONG:
        import ftfy

        return str(ftfy.fix_text(text, normalization=form))
    if "\n" not in text[:-1]:
        return _fix_segment(text, form, unescape="<" not in text)[0]
    out, unescape = [], True
    for segment in re.findall(r"[^\n]*\n|[^\n]+", text):
        fixed, unescape = _fix_segment(segment, form, unescape=unescape and "<" not in segment)
        out.append(fixed)
    return "".join(out)


def _fix_segment(text: str, form: Form, *, unescape: bool) -> tuple[str, bool]:
    tables = _tables()
    while True:
        before = text
        if unescape and "&" in text:
            text = _ftfy().fixes.unescape_html(text)
        if not text.isascii() and tables.suspect.search(text):
            text = _ftfy().fixes.fix_c1_controls(fix_encoding(text))
        if "\r\n" in text:
            text = text.replace("\r\n", "\n")
        if "\x1b" in text:
            text = _with_escapes(text)
        text = tables.touched.sub(lambda match: tables.translation[match.group()], text)
        if not text.isascii():
            text = unicodedata.normalize(form, _ftfy().fixes.fix_surrogates(text))
        if text == before:
            return text, unescape


def fix_encoding(text: str) -> str:
    """``ftfy.fix_encoding(text)``: decoded anew until nothing about it is bad, or nothing helps."""
    while True:
        fixed = _decoded_anew(text)
        if fixed == text:
            return text
        text = fixed


def is_bad(text: str) -> bool:
    """``ftfy.badness.is_bad(text)``, asked only near characters outside ASCII."""
    search = _ftfy().badness.BADNESS_RE.search
    return any(search(text, max(0, near.start() - _BEFORE), near.end()) for near in _NEAR.finditer(text))


def _decoded_anew(text: str) -> str:
    """One step of ftfy's: the text as the bytes of the first encoding in which they make UTF-8."""
    if not may_be_mojibake(text) or not is_bad(text):
        return text
    chardata, fixes = _ftfy().chardata, _ftfy().fixes
    held = reduce(and_, map(_encodings, set(_RARE.findall(text))))
    fitting = [name for place, name in enumerate(chardata.CHARMAP_ENCODINGS) if held >> place & 1]
    has_space, has_gap = _HIGH_SPACE.search(text) is not None, any(sign in text for sign in _LOST)
    for name in fitting:
        data = text.encode(name)
        if has_space and name != "macroman" and chardata.ALTERED_UTF8_RE.search(data):
            data = fixes.restore_byte_a0(data)
        if has_gap and name.startswith("sloppy"):
            data = fixes.replace_lossy_sequences(data)
        try:
            return str(data.decode("utf-8-variants" if 0xED in data or 0xC0 in data else "utf-8"))
        except UnicodeDecodeError:
            continue
    fixed = _decoded_inside(text)
    if fixed != text:
        return fixed
    if "latin-1" in fitting:
        if "windows-1252" in fitting:
            return text
        with contextlib.suppress(UnicodeDecodeError):
            fixed = text.encode("latin-1").decode("windows-1252")
            if fixed != text:
                return fixed
    return str(fixes.fix_c1_controls(text))


def _decoded_inside(text: str) -> str:
    """``ftfy.fixes.decode_inconsistent_utf8(text)``: parts that are mojibake by themselves, each repaired."""
    return _ftfy().chardata.UTF8_DETECTOR_RE.sub(  # type: ignore[no-any-return]
        lambda match: _decoded_part(match.group()) if len(match.group()) < len(text) else match.group(), text
    )


@lru_cache(maxsize=8192)
def _decoded_part(part: str) -> str:
    return fix_encoding(part) if is_bad(part) else part


@lru_cache(maxsize=4096)
def _encodings(character: str) -> int:
    """A bit for each encoding that ftfy tries and that holds a character; a text fits where all its characters do."""
    chardata = _ftfy().chardata
    names = enumerate(chardata.CHARMAP_ENCODINGS)
    return sum(chardata.possible_encoding(character, name) << place for place, name in names)


@lru_cache(maxsize=1)
def _ftfy() -> Any:
    import ftfy

    return ftfy


def _with_escapes(text: str) -> str:
    """Without terminal escapes; they come after the character repairs and before the removal of control characters."""
    from ftfy import fixes

    for step in (
        *(fixes.fix_latin_ligatures, fixes.fix_character_width, fixes.uncurl_quotes, fixes.fix_line_breaks),
        *(fixes.fix_surrogates, fixes.remove_terminal_escapes),
    ):
        text = step(text)
    return text
