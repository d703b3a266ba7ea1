"""A recipe for plain Data-Juicer gives the rows that ours gives; what it wrote for the strategies is stored beside."""

from __future__ import annotations

import importlib.util
import json
import os
import py_compile
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bettersynth.engine.export_data_juicer import export_data_juicer
from bettersynth.engine.local import process

ROOT = Path(__file__).parents[3]


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("recorder", ROOT / "tools" / "record_data_juicer_export.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()
RECORDED = json.loads(TOOL.RECORDED.read_text(encoding="utf-8"))
PYTHON = os.environ.get("BETTERSYNTH_DATA_JUICER_PYTHON", "")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(TOOL.make_data(tmp_path_factory.mktemp("export") / "data"))


def _ours(planned: Any, out: Path) -> list[list[Any]]:
    process(planned.recipe, out=out, workers=1)
    rows: list[list[Any]] = TOOL.essence(TOOL.read(out / "processed_data.jsonl"))
    return rows


@pytest.mark.parametrize("strategy", TOOL.STRATEGIES)
def test_data_juicer_wrote_the_rows_that_ours_writes(strategy: str, data: Path, tmp_path: Path) -> None:
    assert len(RECORDED[strategy]) == TOOL.VARIABLES["budget"]
    assert _ours(TOOL.plan_of(strategy, data), tmp_path / "out") == RECORDED[strategy]


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="needs BETTERSYNTH_DATA_JUICER_PYTHON")
@pytest.mark.parametrize("strategy", TOOL.STRATEGIES)
def test_data_juicer_writes_the_rows_that_ours_writes(strategy: str, data: Path, tmp_path: Path) -> None:
    planned = TOOL.plan_of(strategy, data)
    folder = export_data_juicer(planned, tmp_path / "export").folder
    rows = TOOL.essence(TOOL.run_data_juicer(PYTHON, folder))
    assert rows == _ours(planned, tmp_path / "out") == RECORDED[strategy]
    (lost,) = TOOL.read(folder / "quarantine.jsonl")
    assert (lost["id"], lost["key"], lost["operator"]) == ("0020", "0:21", "read")


def test_the_folder_holds_a_recipe_and_operators_but_no_engine(data: Path, tmp_path: Path) -> None:
    exported = export_data_juicer(TOOL.plan_of("quality_focused", data), tmp_path / "export")
    document = yaml.safe_load((tmp_path / "export" / "recipe.yaml").read_text(encoding="utf-8"))
    names = [next(iter(step)) for step in document["process"]]
    assert names[0] == "bettersynth_start" and names[-1] == "bettersynth_finish"
    assert [there for _, there in exported.steps] == names[1:-1]
    assert {"fix_unicode_mapper", "words_num_filter"} <= set(names), "its own operators where they do the same"
    assert "bettersynth_clean_html_mapper" in names, "ours knows <image> as a token"
    assert document["dataset_path"] == str(data) and document["skip_op_error"] is False
    package = tmp_path / "export" / "bettersynth_operators"
    own = {path.stem for path in package.glob("*.py")} - {"__init__", "settings"}
    assert own == {name.removeprefix("bettersynth_") for name in names if name.startswith("bettersynth_")}
    for path in package.glob("*.py"):
        py_compile.compile(str(path), doraise=True)
    vendored = {path.name for path in (package / "vendor" / "bettersynth").iterdir() if path.is_dir()}
    assert "ops" in vendored and not vendored & {"engine", "experiment", "cli", "train", "demo"}


def test_values_on_a_threshold_survive_its_rounding(data: Path, tmp_path: Path) -> None:
    planned = TOOL.plan_of("quality_focused", data)
    export_data_juicer(planned, tmp_path / "export")
    document = yaml.safe_load((tmp_path / "export" / "recipe.yaml").read_text(encoding="utf-8"))
    steps = {name: params for step in document["process"] for name, params in step.items()}
    assert 0.3 < steps["word_repetition_filter"]["max_ratio"] < 0.3 + 1e-8


def test_equal_names_say_equal_keys(data: Path, tmp_path: Path) -> None:
    export_data_juicer(TOOL.plan_of("quality_focused", data), tmp_path / "export")
    document = yaml.safe_load((tmp_path / "export" / "recipe.yaml").read_text(encoding="utf-8"))
    ranges = [
        set(step["bettersynth_stat_range_filter"])
        for step in document["process"]
        if "bettersynth_stat_range_filter" in step
    ]
    assert len(ranges) == 3 and all(keys == {"stat", "min_value", "max_value", "step"} for keys in ranges)


def test_the_operators_load_beside_a_stand_in_for_data_juicer(data: Path, tmp_path: Path) -> None:
    """Every file registers and takes its recipe's parameters; a mapper works on Data-Juicer's batches."""
    exported = export_data_juicer(TOOL.plan_of("advanced_data_processing", data), tmp_path / "export")
    base = tmp_path / "packages" / "data_juicer" / "ops"
    base.mkdir(parents=True)
    for folder in (base, base.parent):
        (folder / "__init__.py").touch()
    (base / "base_op.py").write_text(
        "class OP:\n    def __init__(self, **kwargs): assert not kwargs, kwargs\n"
        "class Filter(OP): pass\nclass Mapper(OP): pass\nclass Selector(OP): pass\n"
        "class OPERATORS:\n    modules = {}\n"
        "    @classmethod\n    def register_module(cls, name):\n"
        "        return lambda made: cls.modules.setdefault(name, made)\n"
    )
    script = (
        "import json, yaml, bettersynth_operators, bettersynth\n"
        "from data_juicer.ops.base_op import OPERATORS\n"
        "steps = [item for step in yaml.safe_load(open('recipe.yaml'))['process'] for item in step.items()]\n"
        "made = [OPERATORS.modules[name](**(params or {})) for name, params in steps if name in OPERATORS.modules]\n"
        "html = next(op for op in made if op.operator == 'clean_html_mapper')\n"
        "state = json.dumps({'key': [0, 1, 0], 'stats': {}})\n"
        "rows = {'id': ['a', 'b'], 'text': ['<i>x</i> y', None], 'images': [[], []]}\n"
        "rows['__bettersynth__'] = [state, state]\n"
        "print(json.dumps([len(made), html.process_batched(rows)['text'], 'vendor' in bettersynth.__file__]))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "packages"), str(exported.folder)])}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=exported.folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, texts, is_vendored = json.loads(done.stdout)
    assert count == exported.num_ours + 2 and texts == ["x y"] and is_vendored
    (lost,) = TOOL.read(exported.folder / "quarantine.jsonl")
    assert lost["id"] == "b" and lost["operator"] == "clean_html_mapper"


def test_the_command(call: Any, data: Path, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "x", "--set", f"dataset_path={data}")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("process:\n  - text_length_filter: {min_len: 3}\n  - band_selector: {stat: text_len}\n")
    shown = call("export", "--data-juicer", recipe, *words).out
    assert "text_length_filter" in shown and "bettersynth_band_selector" in shown and "1 of 2 steps are ours" in shown
    facts = call("export", "--data-juicer", recipe, *words, "--json").data
    assert facts["steps"] == [["text_length_filter"] * 2, ["band_selector", "bettersynth_band_selector"]]
    assert "--data-juicer" in call("export", recipe, *words, expect=2).err


def test_what_cannot_run_there_is_said(call: Any, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("process:\n  - text_length_filter: {min_len: 3, text_key: caption}\n")
    refused = call(
        "export", "--data-juicer", recipe, "--out", tmp_path / "x", "--set", f"dataset_path={data}", expect=2
    )
    assert "columns of its own" in refused.err or "caption" in refused.err
    (tmp_path / "file").touch()
    recipe.write_text("process:\n  - text_length_filter:\n")
    blocked = call(
        "export", "--data-juicer", recipe, "--out", tmp_path / "file", "--set", f"dataset_path={data}", expect=1
    )
    assert "cannot write" in blocked.err
