"""YAML documents: line numbers, overrides, all mistakes at once."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field

from bettersynth.config.load import apply_overrides, load_yaml, parse_yaml, validate
from bettersynth.core.errors import ConfigError, ConfigErrors


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    batch_size: int = 1


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    ratio: float = Field(0.5, le=1)
    inner: Inner | None = None


def test_every_mistake_is_reported_with_its_line_and_nearest_name() -> None:
    document = parse_yaml("nmae: x\nratio: 2\ninner:\n  batch_sise: 3\n", name="a.yaml")
    with pytest.raises(ConfigErrors) as caught:
        validate(Model, document)
    text = caught.value.render()
    assert len(caught.value.problems) == 4
    assert "a.yaml:1 nmae" in text and "did you mean 'name'?" in text
    assert "missing key 'name'" in text
    assert "a.yaml:2 ratio" in text and "at most 1" in text
    assert "a.yaml:4 inner.batch_sise" in text and "did you mean 'batch_size'?" in text


def test_types_are_not_guessed() -> None:
    with pytest.raises(ConfigError, match=r"a.yaml:1 name"):
        validate(Model, parse_yaml("name: 3\n", name="a.yaml"))
    assert validate(Model, parse_yaml("name: a\nratio: 1e-3\n")).ratio == 0.001


def test_overrides_reach_into_mappings_and_lists() -> None:
    document = parse_yaml("a: {b: 1}\nlist: [{x: 1}]\n")
    changed = apply_overrides(document, ["a.b=2.5", "list.0.x=[1, 2]", "new.deep=on"])
    assert changed.data == {"a": {"b": 2.5}, "list": [{"x": [1, 2]}], "new": {"deep": True}}
    assert document.data["a"] == {"b": 1}


def test_bad_overrides_are_reported_together() -> None:
    with pytest.raises(ConfigErrors) as caught:
        apply_overrides(parse_yaml("a: 1\nl: []\n"), ["novalue", "a.b=1", "l.3.x=1"])
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [1", "not valid YAML"), ("- 1\n", "mapping"), ("a: 1\na: 2\n", "key written twice"), ("", "mapping")],
)
def test_unreadable_documents(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, name="x.yaml")
    assert words in caught.value.render() and "x.yaml" in caught.value.render()


def test_missing_file_and_python_objects(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="cannot read"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml("a: !!python/object/apply:os.system ['true']\n")


def test_what_was_expected_is_said_in_the_language_in_force() -> None:
    from bettersynth.core.lang import set_language

    document = parse_yaml("name: x\nratio: high\n", name="a.yaml")
    set_language("zh")
    try:
        with pytest.raises(ConfigError) as caught:
            validate(Model, document)
    finally:
        set_language("en")
    assert caught.value.expected == "一个数"


def test_a_merged_key_may_be_overridden() -> None:
    document = parse_yaml("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  x: 3\n")
    assert document.data["other"] == {"x": 3, "y": 2} and document.lines["other", "x"] == 4
