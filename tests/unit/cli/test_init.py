"""Kits made, listed and taken over from the command line."""


def test_make_list_and_make_again(call, tmp_path):
    kit = tmp_path / "kit"
    planned = call("init", kit, "--track", "demo", "--plan", "--json").data
    assert not kit.exists() and set(planned.values()) == {"to do"}
    first = call("init", kit, "--track", "demo")
    assert "kit for track demo" in first.out and "still missing: input/" in first.out
    (kit / "solution" / "readme").write_text("mine", encoding="utf-8")
    again = call("init", kit, "--track", "demo", "--json").data
    assert again["written"] == [] and len(again["kept"]) >= len(planned) - 1
    assert (kit / "solution" / "readme").read_text(encoding="utf-8") == "mine"
    assert "kit of another track" in call("init", kit, "--track", "10k", expect=2).err


def test_adopt_a_foreign_kit(call, tmp_path):
    kit = tmp_path / "theirs"
    (kit / "toolkit").mkdir(parents=True)
    (kit / "input" / "pretrain_stage_1_10k").mkdir(parents=True)
    (kit / "output" / "training_dirs" / "MGM-2B-Finetune-old").mkdir(parents=True)
    done = call("init", "--adopt", kit)
    assert "kit for track 10k" in done.out and "MGM-2B-Finetune-old" in done.out
    assert "no such folder" in call("init", "--adopt", tmp_path / "nothing", expect=2).err


def test_folder_or_adopt_but_not_both(call, tmp_path):
    assert "either a folder or --adopt" in call("init", expect=2).err
    assert "either a folder or --adopt" in call("init", tmp_path, "--adopt", tmp_path, expect=2).err
