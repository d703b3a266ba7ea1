"""A demo kit with everything a submission needs, without training: manifests as trainer and engine write them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from bettersynth.config.train import stage_config
from bettersynth.core.artifact import Artifact, write_manifest
from bettersynth.core.fingerprint import digest_file, digest_json
from bettersynth.core.lang import set_language
from bettersynth.demo.world.build import WorldSizes, build
from bettersynth.eval.runner import generate
from bettersynth.eval.score import score
from bettersynth.formats.jsonl import read_rows, write_rows
from bettersynth.formats.llava import dj_to_llava, questions_by_id, write_llava
from bettersynth.infer.checkpoint import checkpoint_digest
from bettersynth.infer.protocols import ChatRequest, ChatResponse, Decoding
from bettersynth.kit.build import init
from bettersynth.submission.locked_files import record_data
from bettersynth.submission.train_script import save_script
from bettersynth.train.preset import load_preset

NAME = "balanced"
SIZES = WorldSizes(pool=24, instruct=6, textvqa=8, mmbench=8, dev_textvqa=2, dev_mmbench=2)


class Answerer:
    """Says the same to every question."""

    def __init__(self, digest: str) -> None:
        self.digest = digest

    def generate(self, requests: Sequence[ChatRequest], decoding: Decoding) -> list[ChatResponse]:
        return [ChatResponse(request.key, "A", (5, 1), "stop") for request in requests]


def write_stage(kit: Path, stage: int, data: Path, adapter: str = "") -> Artifact:
    """A finished stage as ``train.stages`` leaves it."""
    kind = "Pretrain" if stage == 1 else "Finetune"
    folder = kit / "output" / "training_dirs" / f"MGM-2B-{kind}-{NAME}"
    folder.mkdir(parents=True)
    settings = stage_config(
        {"data": str(data), "model_zoo": "zoo", **load_preset("demo").settings(stage), "stage": stage}
    ).result_settings()
    files = {"config.json": b"{}", "rejected.jsonl": b""}
    if stage == 1:
        files["mm_projector.bin"] = b"projector"
    else:
        files |= {"model.safetensors": b"weights" * 100, "tokenizer.json": b"{}"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name in ("pretrain.log",) if stage == 1 else ("finetuning.log", "finetune.log"):
        (folder / name).write_text("{'loss': 1.5, 'learning_rate': 0.001}\n")
    parents = {"data": digest_file(data), "llm": "l" * 32}
    if adapter:
        parents["adapter"] = adapter
    facts = {
        "stage": stage,
        "family": "mgm",
        "identity": {"settings": settings, "inputs": parents},
        "rows": 24,
        "samples_seen": settings["samples_seen"],
    }
    run = {"wall_s": 1.5, "device": "cpu"}
    return write_manifest(folder, kind="checkpoint", facts=facts, files=list(files), parents=parents, run=run)


def write_data(kit: Path, *, changed: int = 9) -> Path:
    """The seed set with some captions rewritten, its manifest, and the LLaVA file that stage 1 reads."""
    seed = kit / "input/pretrain_stage_1_demo"
    rows = []
    for number, row in read_rows(seed / "mgm_pretrain_stage_1_demo.jsonl"):
        assert isinstance(row, dict)
        text = "<__dj__image>\na red cup. <|__dj__eoc|>" if number % 3 == 0 else row["text"]
        rows.append({**row, "text": text})
    folder = kit / "output/processed_data"
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "processed_data.jsonl"
    write_rows(data, rows)
    write_llava(
        folder / "processed_data.jsonl-sampled.jsonl.json",
        dj_to_llava(rows, questions=questions_by_id(seed / "stage_1.json")),
    )
    accounting = [
        {"operator": "read", "rows_in": 24, "rows_out": 24, "changed": 0, "rows_made": 0},
        {"operator": "image_captioning_mapper #2", "rows_in": 24, "rows_out": 24, "changed": changed, "rows_made": 0},
    ]
    facts = {"name": NAME, "track": "challenge", "accounting": accounting}
    write_manifest(folder, kind="dataset", facts=facts, files=[data.name], run={"wall_s": 2.0})
    return folder / "processed_data.jsonl-sampled.jsonl.json"


def answer(kit: Path, digest: str) -> None:
    """Answers and scores of all required benchmarks by a model of that digest."""
    results = kit / "output/eval_results" / f"MGM-2B-Finetune-{NAME}"
    for protocol in ("textvqa-noocr", "mmbench"):
        predictions = generate(protocol, Answerer(digest), kit / "toolkit/eval", results / protocol)
        score(predictions.folder, kit / "toolkit/eval", resamples=20)


@pytest.fixture(scope="session")
def finished_kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit that passes every check; copied for each test."""
    kit = tmp_path_factory.mktemp("kit") / "kit"
    build(kit, sizes=SIZES, seed=3)
    init(kit, "demo")
    record_data(kit)
    save_script(kit, {"EXP_NAME": NAME}, track="demo")
    first = write_stage(kit, 1, write_data(kit))
    instruct = kit / "toolkit/training/data/finetuning_stage_1_demo/mgm_instruction_stage_1_demo.json"
    second = write_stage(kit, 2, instruct, first.digest)
    weights = checkpoint_digest(second.folder)
    answer(kit, digest_json({"checkpoint": weights, "dtype": "float32", "aspect": "pad"}))
    return kit


@pytest.fixture
def kit(finished_kit: Path, tmp_path: Path) -> Path:
    set_language("en")
    return Path(shutil.copytree(finished_kit, tmp_path / "kit"))


def edit_manifest(folder: Path, **facts: object) -> None:
    """Write a manifest again with changed facts or settings (``settings_lr=…``), its digest right."""
    raw = json.loads((folder / "manifest.json").read_text())
    for key, value in facts.items():
        if key.startswith("settings_"):
            raw["facts"]["identity"]["settings"][key.removeprefix("settings_")] = value
        elif key.startswith("parents_"):
            raw["parents"][key.removeprefix("parents_")] = value
        else:
            raw["facts"][key] = value
    files = list(raw["files"])
    write_manifest(folder, kind=raw["kind"], facts=raw["facts"], files=files, parents=raw["parents"], run=raw["run"])
