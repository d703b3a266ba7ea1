"""Reading all rows of a shard at once gives what reading them one by one gives, or is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bettersynth.engine import shard as shard_module
from bettersynth.engine.jobs import Settings, ShardJob, StageJob
from bettersynth.engine.reading import plain_batch
from bettersynth.engine.shard import ShardRun
from bettersynth.engine.source import SourceFile, SourceShard
from bettersynth.formats.data_juicer import Tokens
from bettersynth.formats.jsonl import split_lines

PLAIN = [b'{"id": "a", "text": "x"}', b' {"text":"\\u00e9 \xc3\xa9","k":[1]}\r', b'{"id":3,"text":"","images":null}']
ODD = [
    *(b"", b"[1]", b'{"id": "a"}', b'{"text": null}', b'{"text": "a", "id": 1.5}', b'{"text": "a", "id": true}'),
    *(b'{"text": "a", "images": ""}', b'{"text": "a", "images": [1]}', b'{"text": "a", "images": ["none.png"]}'),
    *(b'{"text": "a"} {}', b'{"text": "\xff"}', b'{"text": "\\ud800"}', b'\xef\xbb\xbf{"text": "b"}', b"  "),
]


def run_of(path: Path, **changes: Any) -> ShardRun:
    files = (SourceFile(0, str(path), path.name, str(path.parent)),)
    names = {"text_key": "text", "image_key": "images", "on_missing_image": "quarantine", **changes}
    settings = Settings(files, tokens=Tokens(), seed=0, on_truncated="keep", device="cpu", **names)
    (span,) = split_lines(path, lines_per_range=100)
    job = ShardJob(0, "", source=SourceShard(0, 0, span, ""))
    return ShardRun(StageJob(0, (), 100, "", settings), job, settings.context())


@examples(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    missing=st.sampled_from(["quarantine", "keep"]),
    lines=st.lists(st.sampled_from([*PLAIN, *PLAIN, *ODD]), min_size=1, max_size=6),
    ends=st.booleans(),
)
def test_rows_are_those_read_one_by_one(tmp_path: Path, missing: str, lines: list[bytes], ends: bool) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n" * ends or b"\n")
    fast, slow = run_of(path, on_missing_image=missing), run_of(path, on_missing_image=missing)
    found = fast.run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_module, "plain_batch", lambda *_: None)
        expected = slow.run()
    assert found.to_pylist() == expected.to_pylist() and found.schema == expected.schema
    assert fast.counts == slow.counts and fast.quarantine == slow.quarantine


def test_plain_lines_are_read_at_once_and_odd_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\n".join(PLAIN))

    def at_once(**changes: Any) -> bool:
        run = run_of(path, **changes)
        assert run.shard.source is not None
        return plain_batch(path.read_bytes(), run.shard.source, run.stage.settings, run.ctx) is not None

    assert at_once() and not at_once(text_key="meta.text") and not at_once(required=(("k", None),))
    for odd in ODD:
        if odd.strip():
            path.write_bytes(b"\n".join([*PLAIN, odd]))
            assert not at_once()
    path.write_bytes(b'{"text": "a", "images": ["none.png"]}')
    assert at_once(on_missing_image="keep")
    (tmp_path / "there.png").touch()
    path.write_bytes(b'{"text": "a", "images": ["there.png"]}')
    assert at_once(on_missing_image="keep") and at_once()
