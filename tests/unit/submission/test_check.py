"""Checking a zip that comes from anywhere: damaged, escaping, linking, exploding, incomplete."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from bettersynth.core.errors import ConfigError, DataError, RuleError
from bettersynth.submission import source
from bettersynth.submission.check import absolute_paths, check
from bettersynth.submission.pack import submit


@pytest.fixture
def packed(kit: Path) -> Path:
    submit(kit, "demo", kit / "submit")
    return kit / "submit" / "submit.zip"


def _reasons(path: Path, track: str | None = "demo") -> str:
    with pytest.raises(RuleError) as caught:
        check(path, track=track)
    return "\n".join(caught.value.reasons)


def _with_entry(path: Path, info: zipfile.ZipInfo | str, data: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, data)
    return path


def test_corrupt_zips_are_clear_errors(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    for number, broken in enumerate((b"", b"no zip at all", data[: len(data) // 2])):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(broken)
        with pytest.raises(DataError, match="not a whole zip file"):
            check(path)
    with pytest.raises(DataError, match="no such file"):
        check(tmp_path / "none.zip")


def test_a_flipped_byte_is_found(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    place = data.find(b"weightsweights")
    assert place > 0
    data[place] ^= 1
    packed.write_bytes(bytes(data))
    assert "model.safetensors does not match its checksum" in _reasons(packed)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../evil.sh", "leaves the folder"),
        ("solution/../../evil.sh", "leaves the folder"),
        ("/etc/evil", "absolute path"),
        ("C:\\evil", "not a portable path"),
        ("solution\\..\\evil", "not a portable path"),
        ("solution/a\x01b", "no file name"),
    ],
)
def test_escaping_names_are_refused(packed: Path, name: str, expected: str) -> None:
    assert expected in _reasons(_with_entry(packed, zipfile.ZipInfo(name)))


def test_links_doubles_and_encryption_are_refused(packed: Path) -> None:
    link = zipfile.ZipInfo("solution/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    _with_entry(packed, link, b"/etc/passwd")
    _with_entry(packed, "solution/README")
    found = _reasons(packed)
    assert "solution/link is a symbolic link" in found and "solution/README is in the zip twice" in found


def test_bombs_are_refused_without_being_unpacked(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_RATIO_FROM_BYTES", 1 << 20)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("solution/zeros.bin", bytes(2 << 20))
    assert "a zip bomb" in _reasons(packed)
    monkeypatch.setattr(source, "MAX_TOTAL_BYTES", 1 << 20)
    monkeypatch.setattr(source, "MAX_ENTRIES", 3)
    found = _reasons(packed)
    assert "entries, more than 3" in found and "bytes, more than 1048576" in found


def test_a_zip_with_other_top_folders_is_refused(packed: Path) -> None:
    assert "exactly solution/ and output/" in _reasons(_with_entry(packed, "toolkit/x.txt"))


def test_a_zip_with_another_experiment_is_refused(packed: Path) -> None:
    found = _reasons(_with_entry(packed, "output/eval_results/MGM-2B-Finetune-best/answers.jsonl"))
    assert "output/eval_results/MGM-2B-Finetune-best does not belong to the experiment balanced" in found


def test_a_zip_without_label_needs_a_track(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.zip"
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if name != "output/submission.json":
                new.writestr(name, old.read(name))
    with pytest.raises(ConfigError, match="does not say its track"):
        check(path)
    assert check(path, track="demo").name == "balanced"


def test_every_missing_part_of_a_zip_is_named(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "poor.zip"
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if "NOT_A_CHALLENGE" not in name and "processed_data.jsonl" not in name and "pretrain.log" not in name:
                new.writestr(name, old.read(name))
    found = _reasons(path)
    for part in ("NOT_A_CHALLENGE_ENTRY.txt is missing", "processed_data.jsonl is missing", "lacks its log"):
        assert part in found


def test_absolute_paths_are_told_from_addresses_and_shebangs() -> None:
    def first(text: str, name: str = "a.py") -> tuple[int, str] | None:
        return absolute_paths(source.FolderSource({name: text.encode()}), name)

    assert (
        first("#!/usr/bin/env python3\nurl = 'https://host/data/x'\na = b/data/c\nendpoint: /chat/completions") is None
    )
    assert first("x = 1\nopen('/root/data.json')") == (2, "/root/data.json")
    assert first("path: C:\\Users\\me", "a.yaml") == (1, "C:\\Users\\me")
    assert first("/root/x", "readme") is None
