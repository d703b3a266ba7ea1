"""Messages in English and Chinese.

The English sentence is the key, as in gettext, so the code stays readable and a missing translation falls back to
English. Translations are flat JSON objects in ``core/locale/zh/*.json``; all files of the folder are merged.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

LANGUAGES = ("en", "zh")
_state = {"lang": ""}


def detect_language() -> str:
    """``zh`` when the locale (LC_ALL, LC_MESSAGES, LANG in that order) is Chinese, else ``en``."""
    for variable in ("BETTERSYNTH_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "")
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def set_language(lang: str | None) -> None:
    """Choose the language of all later messages; None means: follow the locale."""
    _state["lang"] = lang if lang in LANGUAGES else detect_language()


def language() -> str:
    """The language in force, ``en`` or ``zh``."""
    return _state["lang"] or detect_language()


@lru_cache(maxsize=1)
def catalogue() -> dict[str, str]:
    """All Chinese translations, keyed by the English template."""
    merged: dict[str, str] = {}
    for path in sorted((Path(__file__).parent / "locale" / "zh").glob("*.json")):
        merged.update(json.loads(path.read_text(encoding="utf-8")))
    return merged


def t(template: str, /, **values: object) -> str:
    """The template in the language in force, with ``{name}`` fields filled in.

    >>> set_language("en"); t("read {n} rows", n=3)
    'read 3 rows'
    >>> t("{n} rows are empty", n=1)
    '1 row is empty'
    """
    return translate(template, language(), **values)


def translate(template: str, lang: str, /, **values: object) -> str:
    """Like :func:`t` in a given language; used by pages that hold both languages."""
    text = catalogue().get(template, template) if lang == "zh" else template
    if not values:
        return text
    if lang != "zh" and any(value in (1, "1") for value in values.values() if isinstance(value, int | str)):
        text = _COUNTED.sub(lambda match: _singular(match, values), text)
    return text.format(**values)


_COUNTED = re.compile(
    r"(\{(\w+)\} (?:failed )?(?:row|record|id|pair|picture|question|answer|sample|seed|file|trial|tensor|problem|"
    r"prompt|group|condition|token|comparison|value|entry|cell|shard))s\b(?: (are|were|have|need)\b)?"
)
_VERBS = {"are": " is", "were": " was", "have": " has", "need": " needs", None: ""}


def _singular(match: re.Match[str], values: Mapping[str, object]) -> str:
    """One counted thing and its verb in the singular, when there is one of it."""
    is_one = values.get(match.group(2)) in (1, "1")
    return match.group(1) + _VERBS[match.group(3)] if is_one else match.group()
