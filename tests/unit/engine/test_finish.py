"""Operators that decide over all rows and then rewrite those that stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bettersynth.engine import trace
from bettersynth.engine.local import accounting_of, process
from bettersynth.formats.jsonl import read_rows

NOTICE = "All rights reserved."


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"{n}",
            "text": f"<image>\n{NOTICE}\nrow {n} says {n % 5}\nsame {n % 9}",
            "caption": NOTICE,
            "images": [],
        }
        for n in range(90)
    ]
    path = tmp_path / "pages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts_of(folder: Path, key: str = "text") -> list[str]:
    return [row[key] for _, row in read_rows(folder / "processed_data.jsonl") if isinstance(row, dict)]


def test_shared_lines_go_and_everything_else_stays(recipe: Any, pages: Path, tmp_path: Path) -> None:
    steps = "  - document_line_deduplicator: {frequency_threshold: 10}\n"
    artifact = process(recipe(steps, dataset_path=str(pages)), out=tmp_path / "o", workers=2)
    assert texts_of(tmp_path / "o") == [f"<image>\nrow {n} says {n % 5}\nsame {n % 9}" for n in range(90)]
    (entry,) = [entry for entry in accounting_of(artifact) if entry.operator == "document_line_deduplicator"]
    assert entry.is_balanced() and entry.changed == 90 and entry.rows_out == 90
    event = next(e for e in trace.load(tmp_path / "o", action="changed") if e["key"] == "0:5")
    assert NOTICE in event["before"] and NOTICE not in event["after"]
    assert event["scores"] == {"removed_lines": 1}
    with (tmp_path / "o" / "processed_data.jsonl").open() as handle:
        assert list(json.loads(handle.readline())) == ["id", "text", "caption", "images"]


def test_the_threshold_can_change_without_reading_again(recipe: Any, pages: Path, tmp_path: Path) -> None:
    for most, gone in ((10, 1), (9, 2)):
        steps = (
            f"  - document_line_deduplicator: {{frequency_threshold: {most}}}\n  - text_length_filter: {{min_len: 1}}\n"
        )
        process(recipe(steps, dataset_path=str(pages)), out=tmp_path / "o", workers=1)
        assert {text.count("\n") for text in texts_of(tmp_path / "o")} == {3 - gone}


def test_in_a_column_of_its_own(recipe: Any, pages: Path, tmp_path: Path) -> None:
    steps = "  - document_line_deduplicator: {text_key: caption}\n"
    process(recipe(steps, dataset_path=str(pages)), out=tmp_path / "o", workers=1)
    assert set(texts_of(tmp_path / "o", "caption")) == {""}
    assert all(NOTICE in text for text in texts_of(tmp_path / "o"))
