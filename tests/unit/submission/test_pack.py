"""Packing: what passes, what the zip holds, and one test per refusal."""

from __future__ import annotations

import importlib.util
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import ConfigError, DataError, RuleError
from bettersynth.submission import train_script
from bettersynth.submission.check import check
from bettersynth.submission.pack import submit
from bettersynth.submission.train_script import fill_script, render_script

PRETRAIN = "output/training_dirs/MGM-2B-Pretrain-balanced"
FINETUNE = "output/training_dirs/MGM-2B-Finetune-balanced"
RESULTS = "output/eval_results/MGM-2B-Finetune-balanced"


def _helpers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("submission_helpers", Path(__file__).with_name("conftest.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HELP = _helpers()


def reasons(kit: Path, track: str = "demo") -> str:
    """The reasons for which a kit is refused, one a line."""
    with pytest.raises(RuleError) as caught:
        submit(kit, track, kit / "submit")
    assert not (kit / "submit" / "submit.zip").exists(), "nothing is written when it is refused"
    return "\n".join(caught.value.reasons)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_good_kit_is_packed_and_the_zip_passes(kit: Path) -> None:
    artifact = submit(kit, "demo", kit / "submit")
    assert Artifact.load(kit / "submit", kind="submission").verify() == []
    assert set(artifact.parents) == {"pretrain", "finetune"}
    path = kit / "submit" / "submit.zip"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        label = json.loads(archive.read("output/submission.json"))
        assert b"no entry to the challenge" in archive.read("solution/NOT_A_CHALLENGE_ENTRY.txt")
        manifest = json.loads(archive.read(f"{FINETUNE}/manifest.json"))
    assert {name.split("/")[0] for name in names} == {"solution", "output"}
    assert {
        "solution/readme",
        "solution/requirements.txt",
        "output/train.sh",
        f"{PRETRAIN}/pretrain.log",
        f"{PRETRAIN}/mm_projector.bin",
        f"{FINETUNE}/finetuning.log",
        f"{FINETUNE}/finetune.log",
        f"{FINETUNE}/model.safetensors",
        f"{RESULTS}/textvqa-noocr/predictions.jsonl",
        f"{RESULTS}/mmbench/scores/results.json",
        "output/processed_data/processed_data.jsonl",
    } <= names
    assert label["is_challenge_entry"] is False and manifest["run"] == {}
    assert not any("hidden" in name or "input/" in name or "__pycache__" in name for name in names)
    report = check(path)
    assert (report.track, report.name, report.num_files) == ("demo", "balanced", len(names))


def test_same_kit_same_bytes(kit: Path) -> None:
    submit(kit, "demo", kit / "a")
    manifest = kit / FINETUNE / "manifest.json"
    edit(manifest, '"wall_s": 1.5', '"wall_s": 99.0')
    (kit / "solution" / "__pycache__").mkdir()
    (kit / "solution" / "__pycache__" / "x.pyc").write_bytes(b"x")
    for path in sorted(kit.rglob("*")):
        if path.is_file():
            path.touch()
    submit(kit, "demo", kit / "b")
    assert (kit / "a/submit.zip").read_bytes() == (kit / "b/submit.zip").read_bytes()


def test_both_spellings_of_log_and_readme_are_taken(kit: Path) -> None:
    (kit / FINETUNE / "finetuning.log").unlink()
    (kit / "solution/readme").rename(kit / "solution/README.md")
    artifact = submit(kit, "demo", kit / "submit")
    assert any("README.md is packed as solution/readme" in notice for notice in artifact.facts["notices"])
    with zipfile.ZipFile(kit / "submit/submit.zip") as archive:
        assert {"solution/readme", f"{FINETUNE}/finetuning.log", f"{FINETUNE}/finetune.log"} <= set(archive.namelist())


def test_excluded_files_stay_out(kit: Path) -> None:
    (kit / "solution/notes.txt").write_text("mine")
    submit(kit, "demo", kit / "submit", exclude=("notes*",))
    with zipfile.ZipFile(kit / "submit/submit.zip") as archive:
        assert "solution/notes.txt" not in archive.namelist()


def _change_script(kit: Path) -> None:
    edit(kit / "output/train.sh", "--from-env", "--from-env --set pretrain.lr=0.01")


def _expand_in_block(kit: Path) -> None:
    edit(kit / "output/train.sh", "EXP_NAME=balanced", "EXP_NAME=balanced\nLOGGING_STEP=$(reboot)")


def _batch(kit: Path) -> None:
    edit(kit / "output/train.sh", "PRETRAIN_BATCH_SIZE_PER_GPU=16", "PRETRAIN_BATCH_SIZE_PER_GPU=12")


def _lora(kit: Path) -> None:
    HELP.edit_manifest(kit / FINETUNE, lora_rank=64)


def _foreign_id(kit: Path) -> None:
    path = kit / "output/processed_data/processed_data.jsonl"
    first = json.loads(path.read_text().splitlines()[0])
    path.write_text(path.read_text() + json.dumps({**first, "id": "made-up"}) + "\n")


def _foreign_picture(kit: Path) -> None:
    path = kit / "output/processed_data/processed_data.jsonl"
    lines = path.read_text().splitlines()
    row = json.loads(lines[0])
    row["images"] = ["other/place.png"]
    path.write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")


def _no_synthesis(kit: Path) -> None:
    accounting = [{"operator": "text_length_filter", "changed": 0, "rows_made": 0}]
    HELP.edit_manifest(kit / "output/processed_data", accounting=accounting)


def _other_data_for_stage_1(kit: Path) -> None:
    (kit / "output/processed_data/processed_data.jsonl-sampled.jsonl.json").unlink()


def _added_rows_for_stage_1(kit: Path) -> None:
    path = kit / "output/processed_data/processed_data.jsonl-sampled.jsonl.json"
    records = json.loads(path.read_text())
    records[0]["conversations"][1]["value"] = "words from elsewhere"
    path.write_text(json.dumps(records))
    from bettersynth.core.fingerprint import digest_file

    HELP.edit_manifest(kit / PRETRAIN, parents_data=digest_file(path))


def _other_model(kit: Path) -> None:
    shutil.rmtree(kit / RESULTS)
    HELP.answer(kit, "0" * 32)


def _hand_written_answers(kit: Path) -> None:
    path = kit / RESULTS / "textvqa-noocr/predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps({"key": line["key"], "text": "simulated"}) for line in lines))


def _forged_answers(kit: Path) -> None:
    """Answers without provenance under a manifest whose digests are right."""
    _hand_written_answers(kit)
    HELP.edit_manifest(kit / RESULTS / "textvqa-noocr")


def _forged_scores(kit: Path) -> None:
    """A better figure under a manifest whose digests are right: only scoring again can tell."""
    folder = kit / RESULTS / "mmbench/scores"
    document = json.loads((folder / "results.json").read_text())
    document["results"][0]["score"]["value"] = 99.0
    (folder / "results.json").write_text(json.dumps(document))
    HELP.edit_manifest(folder)


def _score_without_origin(kit: Path) -> None:
    folder = kit / RESULTS / "mmbench/scores"
    document = json.loads((folder / "results.json").read_text())
    document["results"][0]["provenance"] = {}
    (folder / "results.json").write_text(json.dumps(document))
    HELP.edit_manifest(folder)


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "script": (_change_script, "output/train.sh was changed outside of the editable block"),
    "expansion": (_expand_in_block, "not a plain value in the editable block"),
    "command in block": (
        lambda kit: edit(kit / "output/train.sh", "EXP_NAME=balanced", "EXP_NAME=balanced\ncurl x"),
        "not allowed in the editable block: curl x",
    ),
    "batch": (_batch, "PRETRAIN batch 12 x accumulation 1 x GPUs cannot be 16"),
    "exp name": (
        lambda kit: edit(kit / "output/train.sh", "EXP_NAME=balanced", "EXP_NAME=other"),
        "MGM-2B-Pretrain-other lacks its log",
    ),
    "no script": (lambda kit: (kit / "output/train.sh").unlink(), "output/train.sh is missing"),
    "no readme": (lambda kit: (kit / "solution/readme").unlink(), "solution/readme is missing"),
    "empty readme": (lambda kit: (kit / "solution/readme").write_text(" \n"), "is empty: it describes the method"),
    "no requirements": (
        lambda kit: (kit / "solution/requirements.txt").unlink(),
        "solution/requirements.txt is missing",
    ),
    "absolute path": (
        lambda kit: (kit / "solution/own.yaml").write_text("a: 1\nmodel: /mnt/models/x\n"),
        "solution/own.yaml:2 has an absolute path: /mnt/models/x",
    ),
    "home path": (
        lambda kit: (kit / "solution/own.py").write_text("p = '~/data'\n"),
        "solution/own.py:1 has an absolute path: ~/data",
    ),
    "link": (lambda kit: (kit / "solution/l").symlink_to("/etc/passwd"), "solution/l is a symbolic link"),
    "no log": (lambda kit: (kit / PRETRAIN / "pretrain.log").unlink(), "Pretrain-balanced lacks its log pretrain.log"),
    "empty log": (lambda kit: (kit / PRETRAIN / "pretrain.log").write_text(""), "holds no training losses"),
    "no training manifest": (lambda kit: (kit / FINETUNE / "manifest.json").unlink(), "has no manifest"),
    "edited manifest": (
        lambda kit: edit(kit / FINETUNE / "manifest.json", '"samples_seen": 4000', '"samples_seen": 4'),
        "was edited by hand",
    ),
    "lr": (lambda kit: HELP.edit_manifest(kit / PRETRAIN, settings_lr=0.5), "lr was 0.5, the track fixes 0.004"),
    "epochs": (lambda kit: HELP.edit_manifest(kit / FINETUNE, settings_epochs=3), "epochs was 3, the track fixes 1"),
    "lora": (_lora, "LoRA is not allowed (lora_rank)"),
    "start": (
        lambda kit: HELP.edit_manifest(kit / PRETRAIN, parents_init_from="x"),
        "starts from another model than the kit's bases",
    ),
    "stage 2 start": (
        lambda kit: HELP.edit_manifest(kit / FINETUNE, parents_adapter="x"),
        "stage 2 did not start from the projector of this stage 1",
    ),
    "stage 2 data": (
        lambda kit: HELP.edit_manifest(kit / FINETUNE, parents_data="x"),
        "stage 2 was trained on other data",
    ),
    "changed stage 2 file": (
        lambda kit: edit(
            kit / "toolkit/training/data/finetuning_stage_1_demo/mgm_instruction_stage_1_demo.json", "human", "hmn"
        ),
        "mgm_instruction_stage_1_demo.json was changed",
    ),
    "changed weights": (lambda kit: (kit / FINETUNE / "model.safetensors").write_bytes(b"x"), "changed since training"),
    "no weights": (lambda kit: (kit / PRETRAIN / "mm_projector.bin").unlink(), "lacks the weights mm_projector.bin"),
    "toolkit": (
        lambda kit: edit(kit / "toolkit/training/preprocess/check_global_batch_size.py", "code == 0", "True"),
        "check_global_batch_size.py was changed; it is locked",
    ),
    "toolkit and its record": (
        lambda kit: (
            edit(kit / "install.sh", "doctor", "explain"),
            edit(kit / "toolkit/kit.json", '"install.sh": "', '"install.sh": "0'),
        ),
        "install.sh was changed; it is locked",
    ),
    "toolkit added": (
        lambda kit: (kit / "toolkit/training/scripts/more.py").write_text("x"),
        "more.py was added to toolkit/training",
    ),
    "toolkit script": (
        lambda kit: edit(kit / "toolkit/train_mgm_2b_stage_1.sh", "seed 1024", "seed 7"),
        "toolkit/train_mgm_2b_stage_1.sh was changed outside of the editable block",
    ),
    "no kit record": (lambda kit: (kit / "toolkit/kit.json").unlink(), "no kit record"),
    "foreign id": (_foreign_id, "1 id is not in the seed set, e.g. made-up"),
    "foreign picture": (_foreign_picture, "neither the seed's for their id nor in synthetic_images"),
    "no synthesis": (_no_synthesis, "no synthesis step"),
    "idle synthesis": (
        lambda kit: HELP.edit_manifest(
            kit / "output/processed_data", accounting=[{"operator": "image_captioning_mapper", "changed": 0}]
        ),
        "the synthesis step image_captioning_mapper changed no row",
    ),
    "open recipe": (
        lambda kit: HELP.edit_manifest(kit / "output/processed_data", track="open"),
        "recipe of the open track",
    ),
    "no data manifest": (
        lambda kit: (kit / "output/processed_data/manifest.json").unlink(),
        "nothing says which recipe made it",
    ),
    "no data": (
        lambda kit: (kit / "output/processed_data/processed_data.jsonl").unlink(),
        "output/processed_data/processed_data.jsonl is missing",
    ),
    "other stage 1 data": (_other_data_for_stage_1, "was trained on a file that is not beside"),
    "added rows": (_added_rows_for_stage_1, "1 record of stage 1 are not rows of processed_data.jsonl"),
    "no results": (lambda kit: shutil.rmtree(kit / RESULTS), "no evaluation results"),
    "one benchmark": (lambda kit: shutil.rmtree(kit / RESULTS / "mmbench"), "no answers to mmbench"),
    "no scores": (lambda kit: shutil.rmtree(kit / RESULTS / "mmbench/scores"), "was not scored"),
    "other model": (_other_model, "was answered by another model"),
    "file without origin": (
        lambda kit: (kit / RESULTS / "scores.json").write_text("{}"),
        "scores.json has no provenance",
    ),
    "hand-written answers": (_hand_written_answers, "changed or missing since it was made: predictions.jsonl"),
    "forged answers": (_forged_answers, "simulated answers are refused"),
    "forged scores": (_forged_scores, "when scored again, not 99.00"),
    "score without origin": (_score_without_origin, "a score without provenance"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_with_its_reason(kit: Path, case: str) -> None:
    change, expected = REFUSALS[case]
    change(kit)
    assert expected in reasons(kit)


def test_all_reasons_come_at_once_and_render(kit: Path) -> None:
    _change_script(kit)
    (kit / PRETRAIN / "pretrain.log").unlink()
    _foreign_id(kit)
    with pytest.raises(RuleError) as caught:
        submit(kit, "demo", kit / "submit")
    text = caught.value.render()
    assert caught.value.exit_code == 2
    assert all(part in text for part in ("editable block", "lacks its log", "made-up", "hint: mend these"))


def test_open_track_and_unknown_tracks_are_refused(kit: Path) -> None:
    with pytest.raises(RuleError, match="no challenge track"):
        submit(kit, "open", kit / "submit")
    with pytest.raises(ConfigError, match="unknown track 'onlin'") as caught:
        submit(kit, "onlin", kit / "submit")
    assert caught.value.hint == "did you mean 'online'?"


def test_a_demo_kit_is_not_packed_for_a_challenge_track(kit: Path) -> None:
    found = reasons(kit, "online")
    assert "this kit was made for the track demo, not online" in found
    assert "lr was 0.004, the track fixes 0.001" in found
    assert "cannot be 256" not in found, "16 x 1 fits 256 on 16 GPUs; the settings tell the truth"


def test_more_samples_than_the_cap_are_refused(kit: Path) -> None:
    HELP.edit_manifest(kit / PRETRAIN, samples_seen=200_001)
    assert "200001 samples seen in stage 1, the track allows 200000" in reasons(kit, "online")


def test_final_track_needs_a_start(kit: Path) -> None:
    assert "does not continue from a ranked online model" in reasons(kit, "final")


def test_missing_folder_and_read_only_output_are_clear_errors(kit: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        submit(kit / "nowhere", "demo", kit / "submit")
    (kit / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        submit(kit, "demo", kit / "file" / "submit")


def test_editable_block_is_exactly_the_kits() -> None:
    block = render_script("online").split("Ends")[0]
    for line in (
        "EXP_NAME=default",
        "PRETRAIN_DATASET=../output/image_captioning_output/res_10k.jsonl",
        "PRETRAIN_DATASET_IMAGE_PATH=../input/pretrain_stage_1_10k",
        "PRETRAIN_BATCH_SIZE_PER_GPU=4",
        "PRETRAIN_GRADIENT_ACCUMULATION_STEPS=64",
        "PRETRAIN_DATALOADER_NUM_WORKERS=4",
        "FINETUNE_BATCH_SIZE_PER_GPU=4",
        "FINETUNE_GRADIENT_ACCUMULATION_STEPS=32",
        "FINETUNE_DATALOADER_NUM_WORKERS=4",
        "LOGGING_STEP=1",
        "CKPT_SAVE_STEPS=100",
        "TOTAL_SAVE_CKPT_LIMIT=1",
        'INFER_CUDA_IDX="0"',
    ):
        assert f"\n{line}\n" in block


def test_filling_the_block_changes_nothing_else_and_refuses_expansion() -> None:
    text = render_script("online")
    filled = fill_script(text, {"EXP_NAME": "mine", "PRETRAIN_BATCH_SIZE_PER_GPU": 8, "INFER_CUDA_IDX": "0,1"})
    before, after = train_script.read_script(text), train_script.read_script(filled)
    assert after.problems == () and after.locked_digest == before.locked_digest
    assert (after.values["EXP_NAME"], after.number("PRETRAIN_BATCH_SIZE_PER_GPU")) == ("mine", 8)
    assert train_script.read_script(filled.replace("\n", "\r\n")).locked_digest == before.locked_digest
    with pytest.raises(ConfigError, match="not a plain value"):
        fill_script(text, {"EXP_NAME": "$(id)"})
    with pytest.raises(ConfigError, match="not a variable"):
        fill_script(text, {"LR": 1})


def test_a_changed_locked_file_is_told_before_anything_was_trained(tmp_path: Path) -> None:
    from bettersynth.kit.build import init

    kit = tmp_path / "kit"
    init(kit, "10k")
    changed = kit / "toolkit" / "training" / "preprocess" / "check_sample_number.py"
    changed.write_text(changed.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    told = reasons(kit, "10k")
    assert "check_sample_number.py" in told and "output/train.sh is missing" in told
