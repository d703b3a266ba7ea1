"""Packing from the command line: refusals with all reasons, plans that write nothing, checks of zips."""

import zipfile


def test_refusal_lists_every_reason_and_writes_nothing(call, finished_world):
    done = call("submit", finished_world, expect=2)
    assert "refuse this submission" in done.err
    assert "samples_seen was 8, the track fixes" in done.err and "no synthesis step" in done.err
    assert not (finished_world / "submit").exists()


def test_track_must_be_known(call, tmp_path):
    assert "does not say its track" in call("submit", tmp_path, expect=2).err
    assert "unknown track" in call("submit", tmp_path, "--track", "demoo", expect=2).err
    assert "nothing to submit" in call("submit", tmp_path, "--track", "open", expect=2).err


def test_check_of_a_zip(call, tmp_path):
    path = tmp_path / "submit.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("solution/readme", "x")
    assert "does not say its track" in call("submit", "--check", path, expect=2).err
    assert "refuse this submission" in call("submit", "--check", path, "--track", "demo", expect=2).err


def test_accepted_kit_is_packed_planned_and_checked(call, monkeypatch, tmp_path):
    from bettersynth.core.artifact import write_manifest
    from bettersynth.submission import pack

    def submit(workspace, track, out, *, exclude=()):
        out.mkdir(parents=True, exist_ok=True)
        (out / "submit.zip").write_bytes(b"zip")
        facts = {"track": track, "name": "x", "num_files": 1, "is_challenge_entry": False, "notices": ["look"]}
        return write_manifest(out, kind="submission", facts=facts, files=["submit.zip"])

    monkeypatch.setattr(pack, "submit", submit)
    planned = call("submit", tmp_path, "--track", "demo", "--plan")
    assert "only planned" in planned.out and not (tmp_path / "submit").exists()
    done = call("submit", tmp_path, "--track", "demo")
    assert "notice: look" in done.out and "no challenge track" in done.out
    assert (tmp_path / "submit" / "submit.zip").is_file()
