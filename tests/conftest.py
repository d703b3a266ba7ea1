"""A tiny kit with real files and random tiny models, shared by tests that go through the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_ROOT = Path(__file__).resolve().parents[1]
_STAGE = (
    "{{lr: 1.0e-3, global_batch: 4, per_device_batch_size: 4, samples_seen: {seen}, max_length: 256, "
    "image_size_aux: 128, image_aspect_ratio: pad, precision: fp32, workers: 0, logging_steps: 1}}"
)
# On a busy machine drawing examples takes long; that says nothing about what is tested.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# Tables fit the terminal; what tests see must not depend on the one they are started from.
os.environ["COLUMNS"] = "120"

RAW = "# nothing is done\nhypothesis: nothing is done\ntrack: challenge\nprocess: []\n"
MINE = "track: challenge\nprocess:\n  - clean_html_mapper:\n  - text_length_filter: {min_len: 12}\n"


def golden_zoo() -> Path | None:
    """The random tiny models of the golden set, the full one when it is there."""
    beside = _ROOT.parent / "shared" / "golden" / "mgm_a"
    places = [Path(os.environ.get("BETTERSYNTH_GOLDEN_MGM", beside)), _ROOT / "tests" / "golden" / "data" / "mgm_a"]
    return next((place / "model_zoo" for place in places if (place / "model_zoo").is_dir()), None)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo-track kit: 16 pairs, 8 instructions, a few questions, random models. Not to be changed: copy it."""
    from bettersynth.demo.world.build import WorldSizes, build
    from bettersynth.kit.build import init

    root = tmp_path_factory.mktemp("world") / "kit"
    build(root, sizes=WorldSizes(pool=16, instruct=8, textvqa=4, mmbench=3, dev_textvqa=3, dev_mmbench=2), seed=1)
    init(root, "demo")
    zoo = golden_zoo()
    if zoo is not None:
        target = root / "toolkit" / "training" / "model_zoo"
        shutil.copytree(zoo, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    (root / "raw.yaml").write_text(RAW, encoding="utf-8")
    (root / "mine.yaml").write_text(MINE, encoding="utf-8")
    stages = f"pretrain: {_STAGE.format(seen=8)}\nfinetune: {_STAGE.format(seen=4)}\n"
    (root / "preset.yaml").write_text(f"track: open\nlocked: false\n{stages}", encoding="utf-8")
    return root


@pytest.fixture
def world(tiny_world: Path, tmp_path: Path) -> Path:
    """A copy of the tiny kit that a test may change."""
    return Path(shutil.copytree(tiny_world, tmp_path / "kit", symlinks=True))


@pytest.fixture(scope="session")
def unified_kit() -> ModuleType:
    """What tests of joint training share: a BAGEL of a few thousand parameters and records of every kind."""
    path = _ROOT / "tests" / "unit" / "train" / "unified_kit.py"
    spec = importlib.util.spec_from_file_location("unified_kit", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def unified_folder(unified_kit: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start folder, 24 records to train on and 10 to validate with. New files may be added, none changed."""
    folder = tmp_path_factory.mktemp("unified")
    unified_kit.write_model(folder / "model")
    unified_kit.write_data(folder)
    unified_kit.write_data(folder, 10, "val.jsonl", 9)
    return folder


def run_words(root: Path, *more: str) -> list[str]:
    """The words of ``bettersynth run`` on a tiny kit, short in everything."""
    places = ["--workspace", str(root), "--strategy", str(root / "mine.yaml"), "--preset", str(root / "preset.yaml")]
    return ["run", *more, *places, "--tasks", "textvqa-noocr", "mmbench", "--workers", "1"]


@pytest.fixture(scope="session")
def finished_world(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny kit after ``bettersynth run``. Not to be changed: copy it."""
    if golden_zoo() is None:
        pytest.skip("no golden model zoo: set BETTERSYNTH_GOLDEN_MGM")
    from bettersynth.cli.main import main

    root = Path(shutil.copytree(tiny_world, tmp_path_factory.mktemp("finished") / "kit"))
    assert main(run_words(root)) == 0
    return root


@dataclass(frozen=True)
class Done:
    """Exit code and both streams of a command."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)


Call = Callable[..., Done]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Call]:
    """``call("explore", path, "--json")``: in English, from an empty folder."""
    from bettersynth.core.lang import set_language

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("BETTERSYNTH_LANG", "en")

    def run(*words: object, expect: int | None = 0) -> Done:
        capsys.readouterr()
        from bettersynth.cli.main import main

        code = main([str(word) for word in words])
        streams = capsys.readouterr()
        assert expect is None or code == expect, streams.err
        return Done(code, streams.out, streams.err)

    yield run
    set_language("en")
