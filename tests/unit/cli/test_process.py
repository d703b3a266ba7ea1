"""Recipes from the command line: plan, run, run again, variables and overrides."""

import json


def test_plan_touches_nothing(call, tiny_world, tmp_path):
    words = ("process", tiny_world / "mine.yaml", "--workspace", tiny_world, "--out", tmp_path / "out")
    assert "text_length_filter" in call(*words, "--plan").out
    plan = call(*words, "--plan", "--json").data
    assert plan["track"] == "challenge" and [step["operator"] for step in plan["steps"]][-1] == "text_length_filter"
    assert not (tmp_path / "out").exists()


def test_run_accounts_for_every_row_and_runs_again_for_nothing(call, tiny_world, tmp_path):
    words = ("process", tiny_world / "mine.yaml", "--workspace", tiny_world, "--out", tmp_path / "out", "--np", 1)
    done = call(*words, "--set", "text_length_filter.min_len=60")
    assert "operator" in done.out and "text_length_filter" in done.out and "rows in" in done.out
    facts = call(*words, "--set", "text_length_filter.min_len=60", "--json").data
    dropped = sum(sum(step["dropped"].values()) for step in facts["accounting"])
    assert facts["rows_in"] == 16 == facts["rows_out"] + dropped + facts["quarantined"] and dropped > 0
    assert facts["run"]["shards_computed"] <= 2


def test_variables(call, tiny_world, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    seed = tiny_world / "input" / "pretrain_stage_1_demo" / "mgm_pretrain_stage_1_demo.jsonl"
    recipe.write_text(
        f"dataset_path: {seed}\nprocess:\n  - random_selector: {{select_num: '{{budget}}'}}\n", encoding="utf-8"
    )
    assert "no value for the variable 'budget'" in call("process", recipe, expect=2).err
    done = call("process", recipe, "--budget", 5, "--out", tmp_path / "out", "--np", 1, "--json").data
    assert done["rows_out"] == 5
    assert "cannot read this variable" in call("process", recipe, "--var", "budget", expect=2).err


def test_without_a_place_the_kits_is_taken(call, tiny_world, tmp_path):
    call("process", tiny_world / "raw.yaml", "--workspace", tiny_world, "--np", 1)
    assert (tmp_path / "here" / "output" / "processed_data" / "processed_data.jsonl").is_file()
    assert "not a number of processes" in call("process", tiny_world / "raw.yaml", "--np", 0, expect=2).err


def test_unknown_strategy(call):
    assert "unknown strategy 'no_such'" in call("process", "no_such", expect=2).err


def test_the_plan_says_what_is_kept_and_check_fails_while_work_remains(call, tiny_world, tmp_path):
    words = ("process", tiny_world / "mine.yaml", "--workspace", tiny_world, "--out", tmp_path / "out", "--np", 1)
    assert "not run yet" in call(*words, "--plan", "--check", expect=1).out
    call(*words, "--retry-quarantined")
    assert {stage["state"] for stage in call(*words, "--plan", "--check", "--json").data["stages"]} == {"done"}
    changed = call(*words, "--plan", "--text_length_filter.min_len", 3).out
    assert "operators, parameters or models changed" in changed and "kept from an earlier run" in changed


def _pairs(folder):
    rows = [{"image": f"{number}.png", "caption": f"thing {number} on a table"} for number in range(3)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = folder / "shapes.yaml"
    recipe.write_text("dataset_path: pairs.jsonl\nprocess:\n  - image_shape_filter: {min_width: 5000}\n", "utf-8")
    return recipe


def test_plain_pairs_are_refused_with_the_command_that_makes_rows_of_them(call, tmp_path):
    recipe, way = _pairs(tmp_path), "bettersynth convert pairs-to-dj --input"
    out = ("--out", tmp_path / "out")
    assert way in call("process", recipe, *out, expect=2).err
    unseen = call("process", recipe, *out, "--set", "text_keys=caption", expect=2).err
    assert "no row has the column 'images'" in unseen and way in unseen
    one = call("process", recipe, *out, "--set", "text_keys=caption", "--set", "image_key=image", expect=2).err
    assert "holds one path" in one and way in one and not (tmp_path / "out").exists()
    (tmp_path / "pairs.jsonl").write_text('{"text": "x", "image": ["a.png"]}\n', encoding="utf-8")
    assert "--set image_key=image" in call("process", recipe, *out, expect=2).err
    (tmp_path / "pairs.jsonl").write_text('{"text": "words alone"}\n', encoding="utf-8")  # no picture is no mistake
    call("process", recipe, *out, "--np", 1)


def test_a_result_without_rows_is_warned_about(call, tmp_path):
    recipe, data = tmp_path / "r.yaml", tmp_path / "rows.jsonl"
    recipe.write_text(f"dataset_path: {data}\nprocess:\n  - text_length_filter: {{min_len: 99}}\n", encoding="utf-8")
    data.write_text('{"text": "short"}\n', encoding="utf-8")
    words = ("process", recipe, "--out", tmp_path / "out", "--np", 1)
    assert f"the result has no row (see why with: bettersynth inspect {tmp_path / 'out'})" in call(*words).err
    data.write_text("", encoding="utf-8")
    assert "the result has no row (the input holds none)" in call(*words).err


def test_a_mistyped_operator_in_an_override_gets_its_nearest_name(call, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("process:\n  - text_length_filter:\n  - words_num_filter:\n", encoding="utf-8")
    error = call("process", recipe, "--text_lenght_filter.min_len", 3, "--plan", expect=2).err
    assert "did you mean 'text_length_filter'?" in error and "words_num_filter" in error
    other = call("process", recipe, "--set", "image_shape_filter.min_width=3", "--plan", expect=2).err
    assert "add image_shape_filter to the process list" in other


def test_data_in_the_recipes_place_is_named_as_such(call, tmp_path):
    _pairs(tmp_path)
    error = call("process", tmp_path / "pairs.jsonl", expect=2).err
    assert "a data file, not a recipe" in error and f"--set dataset_path={tmp_path / 'pairs.jsonl'}" in error
    assert "a folder, not a recipe" in call("process", tmp_path, expect=2).err
    (tmp_path / "empty.yaml").touch()
    assert "got: nothing" in call("process", tmp_path / "empty.yaml", expect=2).err


def test_plan_numbers_stages_from_one_and_tells_the_last(call, tmp_path):
    recipe, data = tmp_path / "r.yaml", tmp_path / "rows.jsonl"
    data.write_text('{"text": "short"}\n', encoding="utf-8")
    recipe.write_text(f"dataset_path: {data}\nprocess:\n  - document_deduplicator:\n", encoding="utf-8")
    words = ("process", recipe, "--out", tmp_path / "out", "--plan")
    found = call(*words, "--json").data
    assert [step["stage"] for step in found["steps"]] == [stage["stage"] for stage in found["stages"]] == [1, 2]
    assert found["steps"][1]["note"] == "drops or repeats rows as decided" and "as decided" in call(*words).out


def test_too_many_failed_rows_come_with_the_flag_that_lets_them_go(call, tmp_path):
    recipe, data = tmp_path / "r.yaml", tmp_path / "rows.jsonl"
    data.write_text('{"text": "short"}\n' * 7 + "{oops\n{oops\n", encoding="utf-8")
    recipe.write_text(f"dataset_path: {data}\nprocess:\n  - text_length_filter: {{min_len: 1}}\n", encoding="utf-8")
    words = ("process", recipe, "--out", tmp_path / "out", "--np", 1)
    error = call(*words, expect=1).err
    assert "expected: at most 0 failed rows" in error and "--set max_failed_ratio=0.23" in error
    call(*words, "--set", "max_failed_ratio=0.23")
    assert (
        "--set skip_op_error=true"
        in call(*words[:2], "--out", tmp_path / "o", "--set", "skip_op_error=false", expect=1).err
    )
