"""Plans: what is refused before any work, where stages end, what a cached result depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bettersynth.core.errors import ConfigError, ConfigErrors, RuleError
from bettersynth.engine.plan import plan


def test_unknown_operators_and_parameters_come_together_with_lines(recipe: Any) -> None:
    with pytest.raises(ConfigErrors) as caught:
        recipe(
            "  - text_lenght_filter:\n  - text_length_filter: {min_length: 3}\n  - words_num_filter: {min_num: many}\n"
            "  - text_length_filter: {min_len: 9, max_len: 2}\n  - image_captioning_from_gpt4v_mapper:\n"
        )
    shown = caught.value.render()
    assert len(caught.value.problems) == 5
    assert "did you mean 'text_length_filter'?" in shown and "r.yaml:3" in shown
    assert "did you mean 'min_len'?" in shown and "r.yaml:4" in shown
    assert "min_len 9 is above max_len 2" in shown
    assert "use 'image_captioning_mapper' in its place" in shown


def test_keys_that_only_steer_data_juicer_are_accepted(recipe: Any) -> None:
    planned = plan(recipe("  - text_length_filter: {num_proc: 4, batch_size: 7, text_key: text}\n", use_cache=False))
    assert len(planned.notices) == 2 and "use_cache" in planned.notices[0]
    assert planned.notices[1] == "in steps, without effect here: batch_size, num_proc"
    with pytest.raises(ConfigError, match="a column of its own"):
        recipe("  - qa_from_caption_generator: {text_key: other}\n")


def test_a_missing_model_folder_is_refused_with_its_line(recipe: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(recipe("  - image_text_similarity_filter: {hf_clip: /no/such}\n"))
    assert "no model in this folder" in caught.value.message and "r.yaml:3" in str(caught.value.where)


def test_a_stat_must_be_computed_before_it_is_used(recipe: Any) -> None:
    use = "  - band_selector: {stat: image_text_similarity}\n"
    with pytest.raises(ConfigError, match=r"reads stats\.image_text_similarity"):
        plan(recipe(use))
    plan(recipe("  - image_text_similarity_filter: {hf_clip: fake}\n" + use))


def test_the_challenge_track_refuses_operators_that_add_turns(recipe: Any) -> None:
    process = "  - text_length_filter:\n  - qa_from_caption_generator:\n"
    with pytest.raises(RuleError) as caught:
        plan(recipe(process, track="challenge"))
    assert "qa_from_caption_generator" in caught.value.render() and "r.yaml:5" in caught.value.render()
    assert plan(recipe(process, track="open")).operators[1].name == "qa_from_caption_generator"


def test_stages_end_at_models_and_where_all_rows_are_needed(recipe: Any) -> None:
    planned = plan(
        recipe(
            "  - fix_unicode_mapper:\n  - words_num_filter:\n  - image_text_similarity_filter: {hf_clip: fake}\n"
            "  - text_length_filter: {adaptive_threshold: {method: otsu}}\n  - document_deduplicator:\n"
            "  - clean_html_mapper:\n"
        )
    )
    kinds = [[phase.kind for phase in stage.phases] for stage in planned.stages]
    assert kinds == [
        ["apply"],
        ["score_keep", "score"],
        ["keep", "partial"],
        ["verdict", "partial"],
        ["verdict", "apply"],
    ]
    assert [stage.pixels for stage in planned.stages] == [False, True, False, False, False]
    described = planned.describe()
    assert [line.operator for line in described] == [operator.name for operator in planned.operators]
    assert described[2].note.startswith("scores are kept") and described[4].note == "needs all rows"


def test_keys_depend_on_what_a_phase_reads(recipe: Any) -> None:
    def keys(**params: Any) -> list[list[str]]:
        import json

        text = f"  - image_text_similarity_filter: {json.dumps({'hf_clip': 'fake', **params})}\n"
        return [[phase.key for phase in stage.phases] for stage in plan(recipe(text)).stages]

    base = keys()
    assert keys(min_score=0.3)[0] == base[0] and keys(min_score=0.3)[1] != base[1]
    assert keys(horizontal_flip=True)[0] != base[0]


def test_missing_models_are_told_with_the_other_mistakes_and_once(recipe: Any) -> None:
    from bettersynth.config.load import parse_yaml
    from bettersynth.config.recipe import build_recipe
    from bettersynth.engine.plan import check_models_and_columns, check_steps

    text = (
        "process:\n  - text_lenght_filter:\n  - image_text_similarity_filter: {hf_clip: /none}\n"
        "  - image_text_matching_filter: {hf_blip: /none}\n"
    )
    document = parse_yaml(text, name="r.yaml")
    with pytest.raises(ConfigErrors) as caught:
        build_recipe(document, base=Path(), check_steps=check_steps, check_recipe=check_models_and_columns)
    shown = caught.value.render()
    assert len(caught.value.problems) == 2 and "text_length_filter" in shown
    assert "r.yaml:3" in shown and "r.yaml:4" in shown
