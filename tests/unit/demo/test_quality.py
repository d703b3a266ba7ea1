"""What is said of a recipe's treatment of the known noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bettersynth.core.record import FilterQuality
from bettersynth.demo import quality

LABELS = [
    {"id": "0", "noise": "clean"},
    {"id": "1", "noise": "duplicate", "copy_of": "0"},
    {"id": "2", "noise": "clean"},
    {"id": "3", "noise": "duplicate", "copy_of": "2"},
    {"id": "4", "noise": "spam"},
]


def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str, changed: str = "") -> dict[str, FilterQuality]:
    path = tmp_path / quality.LABELS
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, LABELS)))
    events = {"kept": kept, "changed": changed}
    monkeypatch.setattr(quality, "load_trace", lambda folder, action: [{"id": row} for row in events[action]])
    return {found.noise: found for found in quality.filter_quality(tmp_path, tmp_path)}


def test_either_of_two_equal_pairs_may_stay(tmp_path, monkeypatch):
    found = counted(tmp_path, monkeypatch, kept="123", changed="14")
    # of 0 and 1 the copy stayed, and was repaired; 2 and 3 both stayed; 4 was changed before it was dropped
    assert found["clean"] == FilterQuality("clean", 2, 0, 1, 1)
    assert found["duplicate"] == FilterQuality("duplicate", 2, 1, 0, 1)
    assert found["spam"] == FilterQuality("spam", 1, 1, 0, 0)


def test_a_group_that_is_gone_costs_its_first_pair(tmp_path, monkeypatch):
    found = counted(tmp_path, monkeypatch, kept="2")
    assert found["clean"] == FilterQuality("clean", 2, 1, 0, 1)
    assert found["duplicate"] == FilterQuality("duplicate", 2, 2, 0, 0)
