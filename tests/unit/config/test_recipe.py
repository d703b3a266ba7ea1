"""Recipes: Data-Juicer's syntax, our keys, variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import Recipe, build_recipe
from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors

DATA_JUICER = """
project_name: 'demo'
dataset_path: 'data.jsonl'
export_path: './out/res.jsonl'
np: 4
text_keys: 'text'
image_key: 'images'
image_special_token: '<image>'
eoc_special_token: '<|__dj__eoc|>'
open_tracer: true
trace_num: 10
use_cache: false
data_probe_algo: uniform
process:
  - fix_unicode_mapper:
  - whitespace_normalization_mapper
  - text_length_filter:
      min_len: 10
"""


def build(text: str, **options: object) -> Recipe:
    return build_recipe(parse_yaml(text, name="r.yaml"), base=Path("/base"), **options)  # type: ignore[arg-type]


def test_a_data_juicer_recipe_is_accepted_and_idle_keys_are_named() -> None:
    recipe = build(DATA_JUICER)
    assert [step.operator for step in recipe.steps] == [
        "fix_unicode_mapper",
        "whitespace_normalization_mapper",
        "text_length_filter",
    ]
    assert recipe.steps[2].params == {"min_len": 10}
    assert recipe.steps[2].where == "r.yaml:17 process[2]"
    assert recipe.ignored == ("data_probe_algo", "use_cache")
    assert any("use_cache" in notice and "kept" in notice for notice in recipe.notices)
    assert recipe.keys.open_tracer and recipe.keys.trace_num == 10
    assert recipe.keys.track == "open" and recipe.keys.np == 4
    assert recipe.sources() == [Path("/base/data.jsonl")]


def test_operator_parameters_can_be_overridden_by_operator_name() -> None:
    recipe = build(DATA_JUICER, overrides=["text_length_filter.min_len=5", "np=2"])
    assert recipe.steps[2].params == {"min_len": 5} and recipe.keys.np == 2


def test_variables_fill_strings_and_keep_their_type() -> None:
    text = "budget: 9\nvars: {zoo: /a}\nprocess:\n  - x: {m: '{zoo}/clip', n: '{budget}', re: '\\d{2}'}\n"
    assert build(text).steps[0].params == {"m": "/a/clip", "n": 9, "re": r"\d{2}"}
    assert build(text, variables={"zoo": "/b"}).steps[0].params["m"] == "/b/clip"
    with pytest.raises(ConfigError, match="no value for the variable 'zoo'"):
        build(text.replace("zoo: /a", "zoo: null"))


def test_of_a_list_the_first_path_that_exists_is_taken(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    text = "vars: {m: ['{zoo}/tiny', '{zoo}/real', '{zoo}/other']}\nprocess:\n  - x: {m: '{m}'}\n"
    assert build(text, variables={"zoo": str(tmp_path)}).steps[0].params == {"m": f"{tmp_path}/real"}
    assert build(text, variables={"zoo": "/none"}).steps[0].params == {
        "m": "/none/other"
    }  # named when nothing is there
    assert build(text, variables={"zoo": "/none", "m": "/mine"}).steps[0].params == {"m": "/mine"}


def test_all_mistakes_of_keys_and_steps_come_together() -> None:
    text = "sed: 1\ntrack: closed\nprocess:\n  - {a: 1, b: 2}\n  - filter: 3\n"
    with pytest.raises(ConfigErrors) as caught:
        build(text)
    shown = caught.value.render()
    assert len(caught.value.problems) == 4
    for part in ("did you mean 'seed'?", "r.yaml:2 track", "r.yaml:4 process[0]", "r.yaml:5 process[1].filter"):
        assert part in shown


def test_step_checks_of_the_engine_join_the_list() -> None:
    def check(steps: object, document: object) -> list[BetterSynthError]:
        return [ConfigError("from the engine")]

    with pytest.raises(ConfigErrors) as caught:
        build("nope: 1\n", check_steps=check)
    assert len(caught.value.problems) == 2


def test_several_sources() -> None:
    recipe = build("dataset: {configs: [{type: local, path: a.jsonl}, {path: b.jsonl}]}\n")
    assert recipe.sources() == [Path("/base/a.jsonl"), Path("/base/b.jsonl")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text_keys: []", ("r.yaml:1 text_keys", "got: []", "expected: at least one text key")),
        (
            "dataset:\n  configs:\n    - pth: a",
            ("unknown key 'pth'", "r.yaml:3 dataset.configs[0].pth", "did you mean 'path'?", "missing key 'path'"),
        ),
        ("np: 0", ("r.yaml:1 np", "got: 0", "at least 1")),
    ],
)
def test_mistakes_of_keys_are_told_with_their_place(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises((ConfigError, ConfigErrors)) as caught:
        build(text)
    assert all(word in caught.value.render() for word in words)
