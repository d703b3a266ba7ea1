"""Data-Juicer's keys: all accepted, told apart, overridden from the command line; what cannot be done is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bettersynth.cli.overrides import as_sets
from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import Recipe, build_recipe, load_recipe, mixture, share_out
from bettersynth.core.errors import ConfigError, ConfigErrors

RECIPES = Path(__file__).parents[2] / "data" / "recipes"


def build(text: str, **options: object) -> Recipe:
    return build_recipe(parse_yaml(text, name="r.yaml"), base=Path("/base"), **options)  # type: ignore[arg-type]


def test_every_key_is_accepted_and_the_idle_ones_are_told_once_with_a_reason() -> None:
    recipe = load_recipe(RECIPES / "all_keys.yaml")
    idle = ("cache_compress", "checkpoint", "event_logging", "fusion_strategy", "op_fusion", "open_monitor")
    assert set(idle) <= set(recipe.ignored)
    assert "turbo" not in recipe.ignored  # as Data-Juicer does by itself
    told = "\n".join(recipe.notices)
    assert told.count("op_fusion") == 1 and "one pass" in told
    assert "validators not run here: dj_conversation" in told and "weights choose rows only" in told
    assert recipe.keys.export_path == "jobs/job7/res.jsonl"
    assert [step.operator for step in recipe.steps] == [
        "whitespace_normalization_mapper",
        "row_number_selector",
        "text_length_filter",
    ]


def test_types_of_idle_keys_are_checked_and_typos_of_them_are_named() -> None:
    with pytest.raises(ConfigErrors) as caught:
        build("use_cache: often\nuse_checkpiont: true\nop_fusion: 3\n")
    shown = caught.value.render()
    assert len(caught.value.problems) == 3 and "did you mean 'use_checkpoint'?" in shown
    assert "r.yaml:1 use_cache" in shown and "r.yaml:3 op_fusion" in shown


@pytest.mark.parametrize(
    "line", ["encrypt_before_export: true", "generated_dataset_config: {type: X}", "hpo_config: a"]
)
def test_what_cannot_be_ignored_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="not supported"):
        build(line + "\n")


def test_mixtures() -> None:
    recipe = build("dataset_path: 1 a.jsonl 0.5 b.jsonl\n")
    assert [(source.place, source.take) for source in recipe.inputs()] == [
        ("/base/a.jsonl", None),
        ("/base/b.jsonl", None),
    ]
    assert mixture("a file with 2 words.jsonl")[0].path == "a"  # only asked when no such file exists
    text = "dataset: {max_sample_num: 7, configs: [{path: a, weight: 3}, {path: b, weight: 1}, {path: c, weight: 3}]}\n"
    assert [source.take for source in build(text).inputs()] == [3, 1, 3]
    assert share_out(2, [1, 1, 1]) == [1, 1, 0]
    listed = build("dataset: [{type: local, path: a}]\n")
    assert [source.place for source in listed.inputs()] == ["/base/a"]


def test_the_job_id_is_the_same_for_the_same_recipe() -> None:
    text = "export_path: '{work_dir}/r.jsonl'\nwork_dir: 'w/{job_id}'\nprocess: []\n"
    first, again = build(text).keys.export_path, build(text).keys.export_path
    assert first == again and first is not None and first.startswith("w/") and first.endswith("/r.jsonl")
    assert build(text + "np: 2\n").keys.export_path != first


def test_overrides_as_data_juicer_writes_them() -> None:
    words = ["r.yaml", "--text_length_filter.min_len", "5", "--np=2", "--debug", "--out", "x", "--set", "seed=1"]
    assert as_sets(words, own=("--np",)) == [
        *("r.yaml", "--set", "text_length_filter.min_len=5", "--np=2", "--set", "debug=true"),
        *("--out", "x", "--set", "seed=1"),
    ]
    assert as_sets(["--custom-operator-paths", "a.py", "b"]) == ["--set", "custom_operator_paths=[a.py, b]"]
    assert as_sets(["--min_ln", "3"]) == ["--min_ln", "3"]  # left to the command, which names the nearest flag
    recipe = build("process:\n  - text_length_filter\n", overrides=["text_length_filter.min_len=5"])
    assert recipe.steps[0].params == {"min_len": 5}
