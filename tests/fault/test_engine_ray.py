"""The engine on Ray: same bytes as here, also when a worker or a whole node is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import Recipe, build_recipe
from bettersynth.core.errors import MissingExtraError
from bettersynth.engine.local import process
from bettersynth.engine.plan import check_steps

PROCESS = """
  - whitespace_normalization_mapper:
  - words_num_filter: {min_num: 3}
  - document_deduplicator:
  - repeat_to_budget_selector: {num_samples: 1100}
"""
FILES = ("processed_data.jsonl", "processed_data_stats.jsonl", "quarantine.jsonl", "trace.arrows")
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'bettersynth[ray]'")


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Recipes over 1,200 rows in three shards."""
    words = ["a", "red", "blue", "dog", "house", "sign", "says", "STOP"]
    with (tmp_path / "d.jsonl").open("w") as handle:
        for n in range(1200):
            text = " ".join(words[(n * k) % 8] for k in range(1, 3 + n % 7))
            handle.write(json.dumps({"id": str(n), "text": text}) + "\n")

    def make(text: str = PROCESS, **keys: Any) -> Recipe:
        head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
        document = parse_yaml(f"dataset_path: d.jsonl\n{head}process:{text}", name="r.yaml")
        return build_recipe(document, base=tmp_path, check_steps=check_steps)

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="'ray' extra"):
        process(recipe(executor_type="ray", ray_address="local"), out=tmp_path / "o")


def _workers() -> list[int]:
    """Processes of Ray's actors on this machine that belong to this test."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if words.startswith(b"ray::_Actor.run") and _parent_is_ours(int(folder.name)):
                found.append(int(folder.name))
    return found


def _parent_is_ours(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return False
    return False


SLOW = """
import time
from dataclasses import dataclass
from bettersynth.ops.base import TextMapper

@dataclass(frozen=True, kw_only=True, slots=True)
class SlowMapper(TextMapper):
    word: str = ""
    def rewrite(self, text):
        if self.word and self.word in text:
            import os
            os._exit(9)
        time.sleep(0.002)
        return text
"""


def _slow(tmp_path: Path) -> str:
    (tmp_path / "slow_mapper.py").write_text('"""Takes its time."""\n' + SLOW)
    return str(tmp_path / "slow_mapper.py")


@needs_ray
@pytest.mark.slow
def test_the_same_bytes_also_when_a_worker_is_killed(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    text = "\n  - slow_mapper:" + PROCESS
    keys = {"custom_operator_paths": _slow(tmp_path)}
    process(recipe(text, **keys), out=tmp_path / "here", workers=1)
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for pid in _workers()[:1]:
                time.sleep(0.2)
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.05)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    made = recipe(text, executor_type="ray", ray_address="local", **keys)
    artifact = process(made, out=tmp_path / "ray", workers=2)
    assert killed and contents(tmp_path / "ray") == contents(tmp_path / "here")
    assert process(made, out=tmp_path / "ray", workers=2).digest == artifact.digest


@needs_ray
@pytest.mark.slow
def test_a_row_that_kills_every_worker_is_set_aside(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    rows = (tmp_path / "d.jsonl").read_text().splitlines()
    rows[700] = '{"id": "bad", "text": "DEATH"}'
    (tmp_path / "d.jsonl").write_text("\n".join(rows[640:]) + "\n")
    text = "\n  - slow_mapper: {word: DEATH}"
    keys = {"custom_operator_paths": _slow(tmp_path)}
    made = recipe(text, executor_type="ray", ray_address="local", max_failed_ratio=0.5, **keys)
    artifact = process(made, out=tmp_path / "ray", workers=2)
    assert artifact.facts["quarantined"] == 1 and artifact.facts["rows_out"] == 559


NODE = """
import sys
from ray.cluster_utils import Cluster
import threading, time
from pathlib import Path

recipe, out = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
from bettersynth.engine.local import process
from bettersynth.engine.plan import read_recipe

seen = []
def progress(state):
    if state.shards_done == 1 and not seen:
        seen.append(1)
        cluster.remove_node(second, allow_graceful=False)

made = read_recipe(Path(recipe), overrides=["executor_type=ray", f"ray_address={cluster.address}"])
process(made, out=Path(out), workers=2, progress=progress)
print("killed", len(seen))
"""


@needs_ray
@pytest.mark.slow
def test_the_same_bytes_when_a_node_is_killed(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    text = "\n  - slow_mapper:" + PROCESS
    process(recipe(text, custom_operator_paths=_slow(tmp_path)), out=tmp_path / "here", workers=1)
    head = f"dataset_path: {tmp_path}/d.jsonl\ncustom_operator_paths: {tmp_path}/slow_mapper.py\nprocess:"
    (tmp_path / "r.yaml").write_text(head + text)
    words = [sys.executable, "-c", NODE, str(tmp_path / "r.yaml"), str(tmp_path / "ray")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "killed 1" in done.stdout, done.stderr[-3000:]
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")
