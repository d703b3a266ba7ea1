"""The executor under harm: kill -9, dying workers, damaged pictures, unwritable folders, a second run."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import Recipe, build_recipe
from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.engine.local import process
from bettersynth.engine.plan import check_steps
from bettersynth.formats.jsonl import read_rows
from bettersynth.ops._catalog import OPERATORS

WORDS = ("a", "red", "blue", "dog", "house", "sign", "says", "STOP", "big", "small", "tree", "sky", "near", "the")
PROCESS = """
  - fix_unicode_mapper:
  - words_num_filter: {min_num: 3}
  - image_text_similarity_filter: {hf_clip: fake, min_score: 0.05}
  - recaption_mapper: {hf_img2seq: fake, when: {image_text_similarity: {below: 0.2}}}
  - document_minhash_deduplicator: {keep_short: true}
  - repeat_to_budget_selector: {num_samples: 1500}
"""
DRIVER = """
import os, signal, sys
from pathlib import Path
from bettersynth.engine.local import process
from bettersynth.engine.plan import read_recipe

recipe, out, workers, kill_at = sys.argv[1:]
seen = 0

def progress(event):
    global seen
    seen += 1
    if seen == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)

print(process(read_recipe(Path(recipe)), out=Path(out), workers=int(workers), progress=progress).run["shards_cached"])
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """1,300 rows (three shards) over twelve pictures, and the recipe file r.yaml."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(12):
        small = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((40, 40)).save(folder / f"{number}.png")
    rng = np.random.default_rng(0)
    words = np.array(list(WORDS))
    with (folder / "d.jsonl").open("w") as handle:
        for number in range(1300):
            text = " ".join(rng.choice(words, size=rng.integers(2, 9)))
            row = {"id": str(number), "images": [f"{number % 12}.png"], "text": f"<image>\n{text} <|__dj__eoc|>"}
            handle.write(json.dumps(row) + "\n")
    (folder / "r.yaml").write_text(f"dataset_path: {folder}/d.jsonl\nprocess:{PROCESS}")
    return folder


def make(data: Path, process_text: str, **keys: Any) -> Recipe:
    keys = {"dataset_path": str(data / "d.jsonl"), **keys}
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
    document = parse_yaml(head + "process:\n" + process_text, name="r.yaml")
    return build_recipe(document, base=data, check_steps=check_steps)


def drive(data: Path, out: Path, workers: int, kill_at: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DRIVER, str(data / "r.yaml"), str(out), str(workers), str(kill_at)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def contents(folder: Path) -> dict[str, bytes]:
    names = ("processed_data.jsonl", "processed_data_stats.jsonl", "quarantine.jsonl", "trace.arrows")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_anywhere_and_run_again_gives_the_same_bytes(data: Path, tmp_path: Path, workers: int) -> None:
    reference = process(make(data, PROCESS), out=tmp_path / "reference", workers=1)
    out = tmp_path / "out"
    for kill_at in (2, 4, 7):
        killed = drive(data, out, workers, kill_at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not Artifact.exists(out)
    finished = drive(data, out, workers, 10**6)
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) >= 4  # work done before the kills was not done again
    assert contents(out) == contents(tmp_path / "reference")
    assert Artifact.load(out).digest == reference.digest
    assert not list(out.rglob(".*tmp*"))


def test_workers_die_with_their_parent(data: Path, tmp_path: Path) -> None:
    killed = drive(data, tmp_path / "out", 2, 3)
    assert killed.returncode == -signal.SIGKILL
    # The lock file is free again, and no worker of that run is left (they carry the parent's pid only through us).
    with (tmp_path / "out" / ".work" / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


KILLER = '''
"""Dies on one row."""
import os
from dataclasses import dataclass
from bettersynth.ops.base import TextMapper

@dataclass(frozen=True, kw_only=True, slots=True)
class KillerMapper(TextMapper):
    """Dies on rows with a word."""
    word: str = "DEATH"
    def rewrite(self, text):
        if self.word in text:
            os._exit(9)
        return text
'''


@pytest.fixture
def killer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "killer_mapper.py").write_text(textwrap.dedent(KILLER))
    monkeypatch.syspath_prepend(str(tmp_path / "plugins"))
    monkeypatch.setitem(OPERATORS._modules, "killer_mapper", "killer_mapper")


@pytest.mark.usefixtures("killer")
@pytest.mark.parametrize("before", ["", "  - document_deduplicator:\n"])
def test_a_row_that_kills_its_worker_is_set_aside_alone(data: Path, tmp_path: Path, before: str) -> None:
    lines = (data / "d.jsonl").read_text().splitlines()
    lines[600] = json.dumps({"id": "bad", "images": ["1.png"], "text": "<image>DEATH"})
    (data / "d.jsonl").write_text("\n".join(lines) + "\n")
    made = make(data, before + "  - killer_mapper:\n")
    artifact = process(made, out=tmp_path / "out", workers=2)
    (row,) = [row for _, row in read_rows(tmp_path / "out" / "quarantine.jsonl")]
    assert isinstance(row, dict) and row["id"] == "bad" and "died" in row["error"]
    assert "killer_mapper" in row["error"] and artifact.facts["quarantined"] == 1
    dropped = sum(sum(entry["dropped"].values()) for entry in artifact.facts["accounting"])
    assert artifact.facts["rows_out"] == 1299 - dropped and bool(dropped) == bool(before)


def test_truncated_and_wrong_pictures(data: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(data / "cut.jpg", quality=95)
    whole = (data / "cut.jpg").read_bytes()
    (data / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (data / "text.jpg").write_text("not a picture")
    (data / "empty.jpg").write_bytes(b"")
    lines = [
        json.dumps({"id": n, "images": [n], "text": "<image>x"}) for n in ("cut.jpg", "text.jpg", "empty.jpg", "1.png")
    ]
    (data / "bad.jsonl").write_text("\n".join(lines))
    text = "  - image_text_similarity_filter: {hf_clip: fake, min_score: null}\n"
    loaded = process(
        make(data, text, dataset_path=str(data / "bad.jsonl"), max_failed_ratio=1.0), out=tmp_path / "a", workers=1
    )
    assert loaded.facts["flags"] == {"truncated picture loaded": 1}
    assert loaded.facts["rows_out"] == 2 and loaded.facts["quarantined"] == 2
    strict = make(data, text, dataset_path=str(data / "bad.jsonl"), max_failed_ratio=1.0, on_truncated="quarantine")
    refused = process(strict, out=tmp_path / "b", workers=1)
    errors = {
        row["id"]: row["error"] for _, row in read_rows(tmp_path / "b" / "quarantine.jsonl") if isinstance(row, dict)
    }
    assert refused.facts["rows_out"] == 1 and set(errors) == {"cut.jpg", "text.jpg", "empty.jpg"}
    assert errors["cut.jpg"] == "truncated or damaged image: cut.jpg" and "not an image" in errors["text.jpg"]


def test_an_output_folder_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write to the output folder") as caught:
        process(make(data, PROCESS), out=tmp_path / "file" / "out", workers=1)
    assert "--out" in str(caught.value.hint)
    if os.getuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(DataError, match="cannot write to the output folder"):
            process(make(data, PROCESS), out=tmp_path / "locked", workers=1)


def test_a_second_run_is_kept_out(data: Path, tmp_path: Path) -> None:
    work = tmp_path / "out" / ".work"
    work.mkdir(parents=True)
    with (work / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another run is using this folder"):
            process(make(data, PROCESS), out=tmp_path / "out", workers=1)


def test_missing_input(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        process(make(data, PROCESS, dataset_path=str(data / "none.jsonl")), out=tmp_path / "out", workers=1)
    (data / "hollow").mkdir()
    with pytest.raises(ConfigError, match="no data file in the folder"):
        process(make(data, PROCESS, dataset_path=str(data / "hollow")), out=tmp_path / "out", workers=1)


def test_input_that_changes_or_vanishes_during_the_run(data: Path, tmp_path: Path) -> None:
    for change, words in (
        (lambda: (data / "d.jsonl").write_bytes(b"{}\n" * 5000), "changed"),
        ((data / "d.jsonl").unlink, "cannot read"),
    ):
        with pytest.raises(DataError, match=words):
            process(make(data, PROCESS), out=tmp_path / "out", workers=1, progress=lambda _, change=change: change())
        (data / "d.jsonl").write_text('{"id": "1", "text": "a b c d", "images": ["1.png"]}\n' * 1300)
