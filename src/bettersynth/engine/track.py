"""What a challenge entry's rows may be: chosen, dropped, repeated, with another answer or picture, and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bettersynth.core.errors import RuleError
from bettersynth.core.lang import t
from bettersynth.formats.data_juicer import DEFAULT_TOKENS, Tokens
from bettersynth.formats.jsonl import BadLine, read_rows

_TURN = re.compile(r"\[\[[A-Za-z]+\]\]: ")
_SHOWN = 5


def broken_rules(
    rows: Iterable[Mapping[str, Any]],
    seed_ids: Iterable[str],
    *,
    tokens: Tokens = DEFAULT_TOKENS,
    text_key: str = "text",
    image_key: str = "images",
) -> list[str]:
    """One sentence per broken rule, with how many rows break it and the first few ids; empty for a legal data set.

    Args:
        rows: processed rows in the Data-Juicer view.
        seed_ids: ids of the seed set.
    """
    known = set(seed_ids)
    found: dict[str, Counter[str]] = {}

    def note(rule: str, row_id: str) -> None:
        found.setdefault(rule, Counter())[row_id] += 1

    for row in rows:
        row_id, text = str(row.get("id", "")), str(row.get(text_key, ""))
        if row_id not in known:
            note(t("ids that are not in the seed set (the locked conversion stops there)"), row_id)
        if _TURN.search(text):
            note(t("added questions or turns (the locked conversion drops them)"), row_id)
        if len(set(row.get(image_key) or ())) != 1 or tokens.num_images(text) != 1:
            note(t("rows without exactly one picture and one image token"), row_id)
    return [
        t("{n} x {rule}: {ids}", n=sum(ids.values()), rule=rule, ids=", ".join(list(ids)[:_SHOWN]))
        for rule, ids in found.items()
    ]


def check_challenge(processed: Path, seed: Path) -> int:
    """Check a processed JSONL file against the seed's; returns its number of rows.

    Raises:
        RuleError: with every broken rule. DataError: a file cannot be read.
    """
    seed_ids = (str(row.get("id", "")) for _, row in read_rows(seed) if not isinstance(row, BadLine))
    rows = [row for _, row in read_rows(processed) if not isinstance(row, BadLine)]
    reasons = broken_rules(rows, seed_ids)
    if reasons:
        raise RuleError(
            t("these rows do not fit the challenge track"),
            reasons,
            where=str(processed),
            hint=t("leave out operators that add rows or turns, or declare track: open"),
        )
    return len(rows)
