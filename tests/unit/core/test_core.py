"""The nouns: errors, artifacts, registry, seeds, budgets, messages."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.core.artifact import Artifact, write_atomic, write_manifest
from bettersynth.core.budget import Budget, check_equal, check_global_batch
from bettersynth.core.errors import ConfigError, ConfigErrors, DataError, MissingExtraError, RuleError
from bettersynth.core.fingerprint import canonical_json, digest_bytes, digest_file
from bettersynth.core.lang import catalogue, set_language, t
from bettersynth.core.record import Accounting
from bettersynth.core.registry import Registry, did_you_mean
from bettersynth.core.sample import Conversation, ImageRef, RowKey, Segment
from bettersynth.core.seed import derive_seed


@pytest.fixture(autouse=True)
def _english():
    set_language("en")
    yield
    set_language("en")


def test_error_form_lists_what_where_got_expected_hint():
    error = ConfigError("bad ratio", where="recipe.yaml:14", got=7, expected="0 to 1", hint="use 0.7")
    assert error.render().splitlines() == [
        "error: bad ratio", "  where: recipe.yaml:14", "  got: 7", "  expected: 0 to 1", "hint: use 0.7",
    ]  # fmt: skip
    assert error.exit_code == 2


def test_several_errors_are_shown_together():
    text = ConfigErrors([ConfigError("one", hint="a"), ConfigError("two")], where="r.yaml").render()
    assert "2 problems found in r.yaml" in text and "1. one" in text and "2. two" in text and "hint: a" in text


def test_rule_error_lists_every_reason():
    text = RuleError("refused", ["no log", "no readme"], hint="add them").render().splitlines()
    assert text == ["error: refused", "  - no log", "  - no readme", "hint: add them"]


def test_manifest_is_written_last_and_detects_changes(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a")
    assert not Artifact.exists(tmp_path)
    made = write_manifest(tmp_path, kind="dataset", facts={"rows": 1}, files=["a.txt"], run={"wall_s": 3})
    loaded = Artifact.load(tmp_path, kind="dataset")
    assert loaded.digest == made.digest and loaded.facts == {"rows": 1} and loaded.verify() == []
    (tmp_path / "a.txt").write_text("b")
    assert loaded.verify() == ["a.txt"]


def test_artifact_digest_ignores_run_and_place(tmp_path: Path):
    digests = set()
    for name, run in (("x", {"wall_s": 1}), ("y", {"wall_s": 2})):
        write_atomic(tmp_path / name / "a", b"1")
        digests.add(write_manifest(tmp_path / name, kind="dataset", facts={}, files=["a"], run=run).digest)
    assert len(digests) == 1


def test_loading_an_unfinished_or_wrong_or_damaged_folder_says_so(tmp_path: Path):
    with pytest.raises(DataError, match="no finished checkpoint"):
        Artifact.load(tmp_path, kind="checkpoint")
    write_manifest(tmp_path, kind="dataset", facts={}, files=[])
    with pytest.raises(DataError, match="wrong kind"):
        Artifact.load(tmp_path, kind="checkpoint")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="damaged manifest"):
        Artifact.load(tmp_path)


def test_atomic_write_replaces_whole_and_leaves_no_temporary_file(tmp_path: Path):
    target = tmp_path / "f"
    write_atomic(target, b"old")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new" and os.listdir(tmp_path) == ["f"]


def test_atomic_write_into_a_file_used_as_a_folder_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_atomic(tmp_path / "file" / "x", b"")


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())))
def test_canonical_json_ignores_key_order(value):
    assert canonical_json(value) == canonical_json(dict(reversed(list(value.items()))))
    assert json.loads(canonical_json(value)) == value


def test_file_and_bytes_digests_agree(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    assert digest_file(tmp_path / "f") == digest_bytes(b"x" * 3_000_000)


def test_seeds_differ_by_name_and_repeat():
    assert derive_seed(1, "op", "0:1") == derive_seed(1, "op", "0:1")
    assert len({derive_seed(1, "op", str(n)) for n in range(1000)}) == 1000


def test_registry_lists_without_importing_and_suggests():
    import sys

    registry = Registry("command", "bettersynth.cli.commands", "bettersynth.commands")
    sys.modules.pop("bettersynth.cli.commands.doctor", None)
    assert "doctor" in registry.names() and "bettersynth.cli.commands.doctor" not in sys.modules
    assert registry.summary("doctor").startswith("Check this machine")
    with pytest.raises(ConfigError, match="did you mean 'doctor'"):
        registry.check("docter")


def test_did_you_mean_is_silent_when_nothing_is_near():
    assert did_you_mean("zzzz", ["alpha"]) is None


def test_global_batch_arithmetic_names_the_fix():
    check_global_batch(4, 64, 1, 256)
    with pytest.raises(ConfigError, match="4 x 32 x 1 = 128") as caught:
        check_global_batch(4, 32, 1, 256)
    assert "64" in (caught.value.hint or "")


def test_unequal_budgets_are_refused():
    check_equal({"a": Budget(10, 2), "b": Budget(10, 2)})
    with pytest.raises(ConfigError, match="same compute budget"):
        check_equal({"a": Budget(10, 2), "b": Budget(12, 2)})
    assert Budget(10, 4).steps == 3


def test_accounting_balances():
    assert Accounting("op", 10, 7, {"short": 2}, quarantined=1).is_balanced()
    assert not Accounting("op", 10, 7, {"short": 2}).is_balanced()
    assert Accounting("op", 10, 25, rows_made=15).is_balanced()


def test_conversation_turns_and_images():
    record = Conversation(
        "1",
        (
            Segment("image", "human", image=ImageRef("a.png")),
            Segment("text", "human", "\nWhat?"),
            Segment("text", "gpt", "A dog.", is_target=True, turn=1),
        ),
    )
    assert record.turns() == [("human", "<image>\nWhat?"), ("gpt", "A dog.")]
    assert record.images == (ImageRef("a.png"),)
    assert str(RowKey(0, 5)) == "0:5" and str(RowKey(0, 5, 2)) == "0:5:2" and RowKey(0, 5) < RowKey(0, 5, 1)


def test_chinese_messages_follow_the_chosen_language():
    template = next(iter(catalogue()), None)
    assert template is not None
    set_language("zh")
    assert t("a sentence without translation {n}", n=1) == "a sentence without translation 1"


def test_translations_keep_their_fields():
    import string

    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for english, chinese in catalogue().items():
        assert fields(english) == fields(chinese), english


def test_labels_of_errors_are_in_the_language_in_force():
    one = DataError("m", where="w", got=3, expected="e", hint="h")
    set_language("zh")
    try:
        assert one.render().splitlines() == ["错误：m", "  位置：w", "  实际：3", "  应为：e", "提示：h"]
        assert str(one) == one.render().removeprefix("错误：")
        both = ConfigErrors([one, ConfigError("n")], where="x.yaml")
        assert both.render().splitlines()[:2] == ["错误：发现 2 个问题，位于 x.yaml", "  1. m"]
        assert RuleError("r", ["a"], hint="h").render().splitlines() == ["错误：r", "  - a", "提示：h"]
        assert "附加组件 'train'" in MissingExtraError("f", "train").render()
    finally:
        set_language("en")
    assert one.render().splitlines()[0] == "error: m" and both.render().startswith("error: ")
