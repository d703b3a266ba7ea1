"""Put marks in the place of personal data: addresses, paths, keys, numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
import pyarrow as pa

from bettersynth.ops._context import OpContext
from bettersynth.ops._personal import Redactor
from bettersynth.ops.base import RECORD, TEXT, Batch, Mapper, with_column

_NESTED = ("file_path", "path", "file", "arguments", "file_paths")
_PAIRS = "dialog_history"


@dataclass(frozen=True, kw_only=True, slots=True)
class PiiRedactionMapper(Mapper):
    """As in Data-Juicer, in texts, dialogues, and texts anywhere in a row that stand in a list or under a name such as
    ``path``. The paths of the row's own pictures stay, which Data-Juicer would overwrite.

    Args:
        mask_paths, mask_emails, mask_secrets, mask_ids, mask_phones, mask_id_cards, mask_channel_ids, mask_pem,
            mask_jwt, mask_urls, mask_ips, mask_macs: what to look for: paths of files, mail addresses, ``key: value``
            of passwords and of session numbers, telephone and Chinese identity numbers, channels of an agent, PEM
            blocks, web tokens, web addresses, IP and MAC addresses.
        mask_platform_open_ids: user names of Feishu, DingTalk and WeCom; marked with ``channel_id_replacement``.
        path_replacement, email_replacement, secret_replacement, id_replacement, phone_replacement,
            id_card_replacement, channel_id_replacement, pem_replacement, jwt_replacement, url_replacement,
            ip_replacement, mac_replacement: the marks, put in as they are.
        extra_patterns: pairs of a pattern and its replacement, which may name groups; applied last.
        redact_keys: fields to look at; by default ``text``, ``query``, ``response``, ``dialog_history``, ``messages``.
            ``text`` is the recipe's text; where its field has another name it is always looked at.
        messages_key: the field that holds a list of messages.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT, RECORD)
    writes: ClassVar[tuple[str, ...]] = (TEXT, RECORD)

    mask_paths: bool = True
    mask_emails: bool = True
    mask_secrets: bool = True
    mask_ids: bool = True
    mask_phones: bool = True
    mask_id_cards: bool = True
    mask_channel_ids: bool = True
    mask_platform_open_ids: bool = True
    mask_pem: bool = True
    mask_jwt: bool = True
    mask_urls: bool = False
    mask_ips: bool = True
    mask_macs: bool = True
    path_replacement: str = "[PATH_REDACTED]"
    email_replacement: str = "[EMAIL_REDACTED]"
    secret_replacement: str = "[REDACTED]"
    id_replacement: str = "[ID_REDACTED]"
    phone_replacement: str = "[PHONE_REDACTED]"
    id_card_replacement: str = "[ID_CARD_REDACTED]"
    channel_id_replacement: str = "[CHANNEL_ID_REDACTED]"
    pem_replacement: str = "[PEM_REDACTED]"
    jwt_replacement: str = "[JWT_REDACTED]"
    url_replacement: str = "[URL_REDACTED]"
    ip_replacement: str = "[IP_REDACTED]"
    mac_replacement: str = "[MAC_REDACTED]"
    extra_patterns: tuple[tuple[str, str], ...] | None = None
    redact_keys: tuple[str, ...] | None = None
    messages_key: str | None = "messages"

    def check(self) -> None:
        """Patterns must be regular expressions."""
        for pattern, _ in self.extra_patterns or ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"extra_patterns: {pattern}: {error}") from error

    def redactor(self) -> Redactor:
        """The rules asked for, with their marks."""
        kinds = {
            "pem": (self.mask_pem, self.pem_replacement),
            "jwt": (self.mask_jwt, self.jwt_replacement),
            "url": (self.mask_urls, self.url_replacement),
            "ip": (self.mask_ips, self.ip_replacement),
            "mac": (self.mask_macs, self.mac_replacement),
            "path": (self.mask_paths, self.path_replacement),
            "email": (self.mask_emails, self.email_replacement),
            "secret": (self.mask_secrets, self.secret_replacement),
            "id": (self.mask_ids, self.id_replacement),
            "channel_id": (self.mask_channel_ids, self.channel_id_replacement),
            "platform_open_id": (self.mask_platform_open_ids, self.channel_id_replacement),
            "phone": (self.mask_phones, self.phone_replacement),
            "id_card": (self.mask_id_cards, self.id_card_replacement),
        }
        marks = tuple((kind, mark) for kind, (asked, mark) in kinds.items() if asked)
        return Redactor(marks, tuple(tuple(pair) for pair in self.extra_patterns or ()))  # type: ignore[misc]

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """Text, and every other field of the record but the pictures."""
        redactor = self.redactor()
        keys = self.redact_keys
        if keys is None:
            keys = (TEXT, "query", "response", _PAIRS, *([self.messages_key] if self.messages_key else ()))
        texts, records = batch.column(TEXT).to_pylist(), batch.column(RECORD).to_pylist()
        token = ctx.tokens.pattern()
        for row, text in enumerate(texts):
            if TEXT in keys or TEXT not in orjson.loads(records[row]):
                texts[row] = _beside_tokens(text, redactor, token)
        known: dict[str, str] = {}
        for record in records:
            if record not in known:
                known[record] = self._record(record, keys, redactor)
        batch = with_column(batch, TEXT, pa.array(texts, pa.string()))
        return with_column(batch, RECORD, pa.array([known[record] for record in records], pa.string()))

    def _record(self, raw: str, keys: tuple[str, ...], redactor: Redactor) -> str:
        record = orjson.loads(raw)
        kept = {name: record[name] for name in ("images", TEXT) if name in record}
        found = {name: value for name, value in record.items() if name not in kept}
        for key in keys:
            if key in found:
                found[key] = self._field(key, found[key], redactor)
        pairs = found.get(_PAIRS) if _PAIRS in keys else None  # those are done; the rest is looked at once more
        found = redactor.value(found, _NESTED)
        if isinstance(pairs, list) and self.messages_key != _PAIRS:
            found[_PAIRS] = [old if _is_pair(old) else new for old, new in zip(pairs, found[_PAIRS], strict=True)]
        changed = {name: kept.get(name, found.get(name)) for name in record}
        return raw if changed == record else orjson.dumps(changed).decode()

    def _field(self, key: str, value: Any, redactor: Redactor) -> Any:
        if isinstance(value, str):
            return redactor.text(value)
        if not isinstance(value, list):
            return value
        if key == self.messages_key:
            return [_message(message, redactor) for message in value]
        if key == _PAIRS:
            return [_pair(turn, redactor) if _is_pair(turn) else turn for turn in value]
        return _pair(value, redactor) if len(value) == 2 else value


def _beside_tokens(text: str, redactor: Redactor, token: re.Pattern[str]) -> str:
    """The text with marks; piece by piece where a mark would swallow a special token."""
    new = redactor.text(text)
    if new == text or token.findall(new) == token.findall(text):
        return new
    found, end = "", 0
    for match in token.finditer(text):
        found += redactor.text(text[end : match.start()]) + match.group()
        end = match.end()
    return found + redactor.text(text[end:])


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 2


def _pair(value: list[Any], redactor: Redactor) -> list[Any]:
    """Question and answer; anything after them is left out, as in Data-Juicer."""
    return [redactor.text(part) if isinstance(part, str) else part for part in value[:2]]


def _message(message: Any, redactor: Redactor) -> Any:
    """Content and the arguments of calls of one message."""
    if not isinstance(message, dict):
        return message
    done = dict(message)
    content = done.get("content")
    if isinstance(content, str):
        done["content"] = redactor.text(content)
    elif isinstance(content, list):
        done["content"] = [_block(block, redactor) for block in content]
    for key in ("tool_calls", "tool_use"):
        if isinstance(done.get(key), list):
            done[key] = [_call(call, redactor) for call in done[key]]
    return done


def _block(block: Any, redactor: Redactor) -> Any:
    if isinstance(block, str):
        return redactor.text(block)
    if not isinstance(block, dict):
        return block
    return {
        key: redactor.text(value) if key in ("text", "content") and isinstance(value, str) else value
        for key, value in block.items()
    }


def _call(call: Any, redactor: Redactor) -> Any:
    if not isinstance(call, dict):
        return call
    done = dict(call)
    name = "function" if done.get("function") else "function_call"
    for holder in (name, None):
        inner = done if holder is None else done.get(holder)
        if not isinstance(inner, dict) or "arguments" not in inner:
            continue
        given = inner["arguments"]
        given = redactor.text(given) if isinstance(given, str) else given
        given = redactor.value(given, _NESTED) if isinstance(given, dict) else given
        changed = {**inner, "arguments": given}
        done = changed if holder is None else {**done, holder: changed}
    return done
