"""Marks in the place of personal data in texts: addresses, paths, keys, numbers. The rules are Data-Juicer's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_BEFORE = r"""(?:^|(?<=[\s"'(\[=]))"""
_REST = r"""[^\s"')\]]"""
_OCTET = r"(?:25[0-5]|2[0-4]\d|[01]?\d\d?)"
_CHANNELS = "feishu|dingtalk|wecom|wechat_work|email|mail|飞书|钉钉|企业微信|邮箱"
_SECRETS = "api[_-]?key|apikey|secret|password|passwd|token|auth|authorization|credential|license[_-]?key"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is looked for, in texts that hold one of ``hints`` (all texts without any); ``group`` of it stays."""

    pattern: re.Pattern[str]
    hints: tuple[str, ...] = ()
    group: int = 0


def _rule(pattern: str, *hints: str, group: int = 0, flags: int = 0) -> Rule:
    return Rule(re.compile(pattern, flags), hints, group)


_ANY_CASE = re.IGNORECASE
# In the order in which they are applied: whole blocks first.
RULES: dict[str, tuple[Rule, ...]] = {
    "pem": (_rule(r"-----BEGIN [A-Z0-9 -]+-----(?s:.*?)-----END [A-Z0-9 -]+-----", "-----BEGIN "),),
    "jwt": (_rule(r"\beyJ[\w=-]+\.[\w=-]+\.[\w=-]+\b".replace(r"\w", "A-Za-z0-9_"), "eyJ"),),
    "url": (_rule(r"""https?://[^\s"'<>]+""", "://"),),
    "ip": (
        _rule(rf"(?<![0-9.])(?:{_OCTET}\.){{3}}{_OCTET}(?![0-9])", "."),
        _rule(r"\[[0-9a-fA-F:.]{3,}\](?::\d{1,5})?\b", "["),
    ),
    "mac": (_rule(r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b", ":", "-"),),
    "path": (
        _rule(rf"{_BEFORE}/(?:Users?|home|tmp|etc|var|opt|Applications){_REST}*", "/"),
        _rule(rf"{_BEFORE}[A-Za-z]:\\{_REST}*", ":\\"),
        _rule(rf"{_BEFORE}\\\\{_REST}+", "\\\\"),
    ),
    "email": (_rule(r"[a-zA-Z0-9][\w.+-]*@[\w.-]+\.(?:[a-zA-Z]{2,}|\w{2,})", "@"),),
    "secret": (_rule(rf"""(\b(?:{_SECRETS})\s*[:=]\s*["']?)[^\s"',}}\]]+""", ":", "=", group=1, flags=_ANY_CASE),),
    "id": (
        _rule(
            r"""\b((?:session|user|request|trace)[_-]?id)\s*[:=]\s*["']?[\w.-]+""", ":", "=", group=1, flags=_ANY_CASE
        ),
    ),
    "channel_id": (
        _rule(
            rf"""(\bchannel\s*[:=]\s*["']?|当前的\s*channel\s*[:：]\s*)(?:{_CHANNELS})\b""",
            *(":", "=", "："),
            group=1,
            flags=_ANY_CASE,
        ),
    ),
    "platform_open_id": (
        _rule(r"\bou_[0-9a-f]{32}\b", "_", flags=_ANY_CASE),
        _rule(r"\b(?:ou|u|uid)_[0-9a-zA-Z_-]{16,64}\b", "_"),
    ),
    "phone": (_rule(r"\b1[3-9]\d{9}\b"), _rule(r"\+\d{1,4}[-.\s]?\d{6,14}\b", "+")),
    "id_card": (_rule(r"\b[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]\b"),),
}


@dataclass(frozen=True, slots=True)
class Redactor:
    """Replaces what the rules of some kinds find.

    Args:
        marks: (kind, mark) pairs; the kinds are those of :data:`RULES`, whose order counts.
        extra: (pattern, replacement) pairs of the user, applied last; replacements may name groups.
    """

    marks: tuple[tuple[str, str], ...]
    extra: tuple[tuple[str, str], ...] = ()

    def text(self, text: str) -> str:
        """The text with its marks."""
        for rule, put in _prepared(self):
            if not rule.hints or any(hint in text for hint in rule.hints):
                text = rule.pattern.sub(put, text)
        return text

    def value(self, value: Any, named: Sequence[str]) -> Any:
        """A nested value with the texts in its lists, and those under the given names, replaced; all new."""
        if isinstance(value, dict):
            return {
                key: self.text(part) if isinstance(part, str) and key in named else self._inner(part, named)
                for key, part in value.items()
            }
        return self._inner(value, named)

    def _inner(self, value: Any, named: Sequence[str]) -> Any:
        if isinstance(value, list):
            return [self.text(part) if isinstance(part, str) else self._inner(part, named) for part in value]
        return self.value(value, named) if isinstance(value, dict) else value


_Put = Callable[[re.Match[str]], str] | str


@lru_cache(maxsize=64)
def _prepared(redactor: Redactor) -> list[tuple[Rule, _Put]]:
    wanted = dict(redactor.marks)
    found: list[tuple[Rule, _Put]] = [
        (rule, _putter(rule.group, wanted[kind])) for kind, rules in RULES.items() if kind in wanted for rule in rules
    ]
    return found + [(Rule(re.compile(pattern)), replacement) for pattern, replacement in redactor.extra]


def _putter(group: int, mark: str) -> _Put:
    """The mark as it is, whatever signs it holds, behind the part of the match that stays."""
    if group:
        return lambda match: match.group(group) + mark
    return lambda match: mark
