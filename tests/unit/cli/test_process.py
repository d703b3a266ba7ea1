"""Recipes from the command line: plan, run, run again, variables and overrides."""


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
