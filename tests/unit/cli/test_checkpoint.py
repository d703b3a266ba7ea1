"""Exporting, converting and sharing checkpoints; the hub is a stand-in that keeps folders."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch

from bettersynth.models.mgm.convert import CONNECTOR, read_adapter
from bettersynth.models.mgm.exchange import OWN_FIELDS
from bettersynth.models.mgm.load import load_checkpoint
from bettersynth.models.weights import load_folder, load_tensors

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "data" / "mgm_a"
CHECKPOINT, ZOO = GOLDEN / "checkpoint", GOLDEN / "model_zoo"
pytestmark = pytest.mark.skipif(not CHECKPOINT.is_dir(), reason="no golden checkpoint")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    from bettersynth.experiment.publish import export_checkpoint

    out = tmp_path_factory.mktemp("exported") / "mine"
    export_checkpoint(CHECKPOINT, out)
    return out


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder, dtype=torch.float32, model_zoo=ZOO).state_dict()


def test_export_writes_everything_and_a_card(call, tmp_path):
    data = call(
        "checkpoint", "export", "--input", CHECKPOINT, "--output", tmp_path / "e", "--dtype", "bfloat16", "--json"
    ).data
    assert data["precision"] == "bfloat16" and data["parameters"] == "262,992"
    names = {path.name for path in (tmp_path / "e").iterdir()}
    assert {"README.md", "config.json", "modeling_bettersynth.py", "tokenizer.json", "generation_config.json"} <= names
    card = (tmp_path / "e" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers") and "262,992 parameters in bfloat16" in card
    assert "gemma-tiny-it" in card and "## Scores" not in card and "AutoModelForCausalLM" in card
    assert str(tmp_path) not in card and str(GOLDEN) not in card
    assert {tensor.dtype for tensor in load_folder(tmp_path / "e").values()} == {torch.bfloat16}
    text = call("checkpoint", "export", "--input", CHECKPOINT, "--output", tmp_path / "f", "--no-code").out
    assert "model card" in text and not (tmp_path / "f" / "modeling_bettersynth.py").exists()
    assert "trust_remote_code" not in (tmp_path / "f" / "README.md").read_text(encoding="utf-8")


def test_there_and_back_through_the_originals_layout(call, exported, tmp_path):
    call("checkpoint", "to-mgm", "--input", exported, "--output", tmp_path / "mgm")
    fields = json.loads((tmp_path / "mgm" / "config.json").read_text(encoding="utf-8"))
    assert not set(OWN_FIELDS) & set(fields) and fields["architectures"] == ["MGMGemmaForCausalLM"]
    assert (tmp_path / "mgm" / "model.safetensors.index.json").is_file()
    call("checkpoint", "from-mgm", "--input", tmp_path / "mgm", "--output", tmp_path / "ours", "--model-zoo", ZOO)
    fields = json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))
    assert set(OWN_FIELDS) <= set(fields)
    before, after = state(CHECKPOINT), state(tmp_path / "ours")
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)


def test_projector_files_of_both_kinds(call, exported, tmp_path):
    mgm, llava = tmp_path / "mm_projector.bin", tmp_path / "llava" / "mm_projector.safetensors"
    data = call("checkpoint", "projector", "--input", exported, "--output", mgm, "--json").data
    assert data["tensors"] == 16 and {name.split(".")[1] for name in load_tensors(mgm)} == set(CONNECTOR)
    call("checkpoint", "projector", "--input", exported, "--output", llava, "--form", "llava")
    assert sorted(load_tensors(llava)) == [
        f"model.mm_projector.{n}.{kind}" for n in (0, 2) for kind in ("bias", "weight")
    ]
    call("checkpoint", "projector", "--input", exported, "--output", tmp_path / "all.bin", "--with-towers")
    assert any("vision_tower_aux" in name for name in load_tensors(tmp_path / "all.bin"))
    # A projector file of stage 1 turns into the other form too.
    call("checkpoint", "projector", "--input", mgm, "--output", tmp_path / "x.bin", "--form", "llava")
    assert len(read_adapter(tmp_path / "x.bin").tensors) == 4


def test_join_puts_a_projector_on_base_models(call, exported, tmp_path):
    for form, fresh in (("mgm", "none"), ("llava", ", ".join(CONNECTOR[1:]))):
        file = tmp_path / f"{form}.bin"
        call("checkpoint", "projector", "--input", exported, "--output", file, "--form", form)
        words = ["--input", file, "--output", tmp_path / form, "--model-zoo", ZOO, "--image-size-aux", "128", "--json"]
        assert call("checkpoint", "join", *words).data["untrained parts"] == fresh
        joined, wanted = state(tmp_path / form), state(CHECKPOINT)
        names = [name for name in wanted if name.startswith("model.mm_projector.")]
        assert names and all(torch.equal(joined[name], wanted[name]) for name in names)


def test_scores_on_the_card_must_be_this_checkpoints(call, tiny_world, tmp_path):
    from bettersynth.eval.runner import generate
    from bettersynth.eval.score import score
    from bettersynth.infer.checkpoint import CheckpointChatModel

    data = tiny_world / "toolkit" / "eval"
    predictions = generate("textvqa-noocr", CheckpointChatModel(CHECKPOINT), data, tmp_path / "m" / "t").folder
    scores = score(predictions, data, resamples=200).folder
    call("checkpoint", "export", "--input", CHECKPOINT, "--output", tmp_path / "e", "--scores", scores)
    card = (tmp_path / "e" / "README.md").read_text(encoding="utf-8")
    assert "textvqa-noocr" in card and "95 % interval" in card and "Made from the checkpoint before export" in card
    other = Path(shutil.copytree(CHECKPOINT, tmp_path / "other"))
    (other / "generation_config.json").write_text("{}", encoding="utf-8")
    words = ("checkpoint", "export", "--input", other, "--output", tmp_path / "f", "--scores", scores)
    assert "another checkpoint" in call(*words, expect=1).err and not (tmp_path / "f").exists()


def test_what_is_missing_or_wrong_is_said_at_once(call, exported, tmp_path):
    assert "--output, --model-zoo" in call("checkpoint", "join", "--input", exported, expect=2).err
    assert "--output, --repo" in call("checkpoint", "pull", expect=2).err
    assert "no such file" in call("checkpoint", "export", "--input", "gone", "--output", "x", expect=1).err
    assert "same folder" in call("checkpoint", "export", "--input", exported, "--output", exported, expect=2).err
    words = ("checkpoint", "export", "--input", exported, "--output", tmp_path / "x", "--dtype", "int3")
    assert "unsupported value" in call(*words, expect=2).err
    words = ("checkpoint", "projector", "--input", exported, "--output", tmp_path / "x.txt")
    assert "unsupported value" in call(*words, expect=2).err


class Hub(types.ModuleType):
    """Keeps folders instead of sending them."""

    def __init__(self, root: Path) -> None:
        super().__init__("huggingface_hub")
        self.root, self.made = root, {}

    def HfApi(self):
        return self

    def create_repo(self, repo, *, private, exist_ok):
        self.made[repo] = private
        return f"https://hub/{repo}"

    def upload_folder(self, *, folder_path, repo_id, commit_message):
        shutil.copytree(folder_path, self.root / repo_id)

    def snapshot_download(self, repo, *, revision=None, local_dir=None):
        if not (self.root / repo).is_dir():
            raise RuntimeError("404 Repository Not Found\nmore")
        return shutil.copytree(self.root / repo, local_dir)


def test_push_and_pull_only_when_asked(call, exported, tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert "https://hub/me/mine" in call("checkpoint", "push", "--input", exported, "--repo", "me/mine").out
    assert hub.made == {"me/mine": True}  # private unless told otherwise
    call("checkpoint", "pull", "--repo", "me/mine", "--output", tmp_path / "back")
    assert (tmp_path / "back" / "config.json").read_bytes() == (exported / "config.json").read_bytes()
    assert "the hub refused" in call("checkpoint", "pull", "--repo", "me/other", "--output", "x", expect=1).err
    assert "no checkpoint here" in call("checkpoint", "push", "--input", tmp_path, "--repo", "me/x", expect=1).err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "bettersynth[hub]" in call("checkpoint", "pull", "--repo", "me/mine", "--output", "x", expect=2).err


def test_a_bagel_folder_is_pushed_as_well_and_half_of_one_is_not(call, bagel_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path / "hub"))
    assert not (bagel_folder / "config.json").exists()
    call("checkpoint", "push", "--input", bagel_folder, "--repo", "me/bagel")
    call("checkpoint", "pull", "--repo", "me/bagel", "--output", tmp_path / "back")
    names = {"llm_config.json", "vit_config.json", "ema.safetensors", "ae.safetensors", "tokenizer.json"}
    assert names <= {path.name for path in (tmp_path / "back").iterdir()}
    for name, said in (("ema.safetensors", "ema.safetensors"), ("vit_config.json", "vit_config.json")):
        (tmp_path / "back" / name).unlink()
        assert said in call("checkpoint", "push", "--input", tmp_path / "back", "--repo", "me/half", expect=1).err
    (tmp_path / "none").mkdir()
    refused = call("checkpoint", "push", "--input", tmp_path / "none", "--repo", "me/none", expect=1).err
    assert "config.json | llm_config.json" in refused
