"""A small data set, three stand-in base folders, and the fake family in place of real ones."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bettersynth.config.train import StageConfig, stage_config

FAKE_FILE = Path(__file__).with_name("fake_family.py")
RANKS_FILE = Path(__file__).with_name("ranks.py")


def _load_fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_family", FAKE_FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_family"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    return _load_fake()


@pytest.fixture
def fake_family(fake: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The fake family is what every name loads."""
    from bettersynth.train import stages

    monkeypatch.setattr(stages, "load_family", lambda name: fake.FakeFamily())
    return fake


def record(number: int, answer: str, image: str | None) -> dict[str, Any]:
    tag = "<image>\n" if image else ""
    turns = [{"from": "human", "value": f"{tag}what is {number}?"}, {"from": "gpt", "value": answer}]
    return {"id": f"s{number:03d}", **({"image": image} if image else {}), "conversations": turns}


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 good rows (one in three without a picture) and a model zoo of stand-ins."""
    folder = tmp_path_factory.mktemp("train_data")
    rng = random.Random(7)
    rows = []
    (folder / "images").mkdir()
    for number in range(42):
        image = None
        if number % 3:
            image = f"images/{number}.png"
            colour = [rng.randrange(256) for _ in range(3)]
            Image.fromarray(np.full((6, 6, 3), colour, dtype=np.uint8)).save(folder / image)
        rows.append(record(number, "a" * rng.randrange(1, 9) + str(number), image))
    (folder / "data.json").write_text(json.dumps(rows))
    for name in ("LLM/gemma/gemma-fake", "OpenAI/clip-fake", "OpenAI/openclip-fake"):
        (folder / "zoo" / name).mkdir(parents=True)
        (folder / "zoo" / name / "config.json").write_text("{}")
    return folder


@pytest.fixture
def settings(data_folder: Path) -> dict[str, Any]:
    """Plain settings of a small stage-2 run: 6 steps of 8 samples, the last one of 2."""
    return {
        "stage": 2,
        "data": str(data_folder / "data.json"),
        "model_zoo": str(data_folder / "zoo"),
        "lr": 0.05,
        "warmup_ratio": 0.1,
        "per_device_batch_size": 4,
        "global_batch": 8,
        "save_steps": 2,
        "seed": 3,
        "workers": 1,
        "pixel_cache_bytes": 1000,
    }


@pytest.fixture
def configure(settings: dict[str, Any]) -> Callable[..., StageConfig]:
    """Settings with changes, as a StageConfig."""

    def build(**changes: Any) -> StageConfig:
        return stage_config({**settings, **changes})

    return build


MGM_ZOO = Path(__file__).parents[2] / "golden" / "data" / "mgm_a" / "model_zoo"


@pytest.fixture(scope="session")
def mgm_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows about plain colours for the real family, one in four without a picture."""
    folder = tmp_path_factory.mktemp("mgm_data")
    rng = random.Random(1)
    rows = []
    colours = {"red": (220, 30, 30), "green": (20, 200, 40), "blue": (30, 40, 230)}
    for number in range(24):
        name = rng.choice(sorted(colours))
        image = f"{number}.png" if number % 4 else None
        if image:
            Image.fromarray(np.full((20, 30, 3), colours[name], dtype=np.uint8)).save(folder / image)
        question = ("<image>\n" if image else f"say {name}, ") + "what colour is it?"
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f"it is {name}"}]
        rows.append({"id": str(number), **({"image": image} if image else {}), "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="session")
def mgm_configure(mgm_data: Path) -> Callable[..., StageConfig]:
    """Settings of a small stage-2 run of the real family with tiny bases: 6 steps of 8 samples."""

    def build(**changes: Any) -> StageConfig:
        plain = {
            "stage": 2,
            "data": str(mgm_data / "data.json"),
            "model_zoo": str(MGM_ZOO),
            "lr": 0.01,
            **({} if "samples_seen" in changes else {"epochs": 2}),
            "per_device_batch_size": 4,
            "global_batch": 8,
            "image_size_aux": 128,
            "image_aspect_ratio": "pad",
            "max_length": 160,
            "save_steps": 3,
            "seed": 5,
        }
        return stage_config({**plain, **changes})

    return build


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[Any]]]:
    """Run jobs one after the other in so many processes; what each process said (see ranks.py)."""
    answers = tmp_path_factory.mktemp("answers")
    server = subprocess.Popen(
        [sys.executable, str(RANKS_FILE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert server.stdin is not None and server.stdout is not None

    def send(jobs: Sequence[dict[str, Any]], num_processes: int, kill: tuple[int, float] | None = None) -> list[Any]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        group = {"WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = [{**group, "RANK": str(rank)} for rank in range(num_processes)] if num_processes > 1 else [{}]
        asked = {"jobs": list(jobs), "ranks": ranks, "answers": str(answers), "kill": kill}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        return list(json.loads(server.stdout.readline()))

    with server:
        yield send
        server.stdin.close()
