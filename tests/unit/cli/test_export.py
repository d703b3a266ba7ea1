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
from bettersynth.engine.plan import plan as make_plan
from bettersynth.engine.plan import read_recipe

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


def _stand_in(folder: Path, packages: Path) -> list[dict[str, Any]]:
    """Rows of an exported folder run beside a stand-in for Data-Juicer, by a Python that does not see our package."""
    script = Path(__file__).with_name("stand_in_executor.py")
    code = (
        "import runpy, sys\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in str(finder).lower()]\n"
        "sys.path = [path for path in sys.path if not path.endswith('/src')]\n"
        f"sys.argv = ['x', {str(packages)!r}]\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "import bettersynth; assert 'vendor' in bettersynth.__file__\n"
        "assert 'bettersynth.engine' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@pytest.mark.parametrize("strategy", TOOL.STRATEGIES)
def test_the_exported_operators_make_the_same_rows(strategy: str, data: Path, tmp_path: Path) -> None:
    planned = TOOL.plan_of(strategy, data)
    folder = export_data_juicer(planned, tmp_path / "export").folder
    rows = _stand_in(folder, tmp_path / "packages")
    assert TOOL.essence(rows) == RECORDED[strategy]
    assert all("__bettersynth__" not in row and row["__dj__stats__"] for row in rows)
    (lost,) = TOOL.read(folder / "quarantine.jsonl")
    assert (lost["id"], lost["key"], lost["operator"]) == ("0020", "0:21", "read")


def test_a_row_that_fails_there_is_set_aside_alone(data: Path, tmp_path: Path) -> None:
    rows = TOOL.read(data)[:9]
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    rows[4]["images"] = [str(tmp_path / "damaged.png")]
    source = data.with_name("damaged.jsonl")
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"dataset_path: {source}\nprocess:\n  - image_shape_filter: {{min_width: 43}}\n")
    folder = export_data_juicer(make_plan(read_recipe(recipe)), tmp_path / "export").folder
    kept = [row["id"] for row in _stand_in(folder, tmp_path / "packages")]
    assert kept == ["0003", "0005", "0006", "0007", "0008"], "narrower pictures are dropped, the damaged one set aside"
    assert [(row["id"], row["operator"]) for row in TOOL.read(folder / "quarantine.jsonl")] == [
        ("0004", "image_shape_filter")
    ]


def test_operators_that_read_fields_or_rewrite_after_deciding_run_there_too(data: Path, tmp_path: Path) -> None:
    rows = TOOL.read(data)
    for number, row in enumerate(rows):
        row["text"] = f"{row['text']}\nAll rights reserved.\nline {number // 2}"
    source = data.with_name("lines.jsonl")
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = tmp_path / "r.yaml"
    steps = "  - specified_numeric_field_filter: {field_key: extra.n, max_value: 12}\n  - document_line_deduplicator:\n"
    recipe.write_text(f"dataset_path: {source}\nprocess:\n{steps}")
    planned = make_plan(read_recipe(recipe))
    folder = export_data_juicer(planned, tmp_path / "export").folder
    there, here = TOOL.essence(_stand_in(folder, tmp_path / "packages")), _ours(planned, tmp_path / "out")
    assert there == here and len(here) == 12
    texts = [row["text"] for row in TOOL.read(tmp_path / "out" / "processed_data.jsonl")]
    assert all("reserved" not in text and "\nline " in text for text in texts)


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
