"""Data-Juicer's operators through the adapter, with a stand-in for Data-Juicer: no row is lost, errors stay alone."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import build_recipe
from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors
from bettersynth.engine.local import accounting_of, process
from bettersynth.engine.plan import check_steps
from bettersynth.engine.plan import plan as make_plan
from bettersynth.ops._catalog import OPERATORS, operator_class
from bettersynth.ops.foreign._facts import all_facts
from bettersynth.ops.foreign._process import PYTHON_VARIABLE, TIMEOUT_VARIABLE, server

ROOT = Path(__file__).parents[3]
Run = Callable[..., "Ran"]


def load(path: Path) -> ModuleType:
    """A module by file, because test folders are no packages."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Ran:
    """A finished run: rows, stats, accounting, quarantine."""

    def __init__(self, out: Path, artifact: Any) -> None:
        self.artifact = artifact
        self.rows = _lines(out / "processed_data.jsonl")
        stats = out / "processed_data_stats.jsonl"
        self.side = _lines(stats) if stats.exists() else []
        self.stats = [line["__dj__stats__"] for line in self.side]
        self.quarantine = _lines(out / "quarantine.jsonl")
        self.steps = accounting_of(artifact)[1:]

    @property
    def texts(self) -> list[str]:
        """Result texts."""
        return [row["text"] for row in self.rows]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fake")
    return Path(load(Path(__file__).with_name("fake_data_juicer.py")).install(folder))


@pytest.fixture
def run(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """run(texts, *steps, workers=1, **row fields)"""
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    server.cache_clear()

    def go(texts: list[str], *steps: Any, workers: int = 1, **fields: Any) -> Ran:
        data = tmp_path / "rows.jsonl"
        rows = [
            {"id": f"r{n}", "text": text, **fields, **({"odd": 1} if n % 2 else {})} for n, text in enumerate(texts)
        ]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return Ran(tmp_path / "out", process(recipe(steps, data), out=tmp_path / "out", workers=workers))

    yield go
    server(str(python)).close()


def recipe(steps: Any, data: Path, **keys: Any) -> Any:
    text = json.dumps({"dataset_path": str(data), "max_failed_ratio": 0.9, "process": list(steps), **keys})
    return build_recipe(parse_yaml(text, name="recipe.yaml"), base=data.parent, check_steps=check_steps)


def test_a_filter_keeps_and_scores_and_sets_aside_only_the_bad_row(run: Run) -> None:
    done = run(["abcdef", "ab", "a bad one", "abcdefgh"], {"video_duration_filter": {"min_duration": 5}})
    assert done.texts == ["abcdef", "abcdefgh"]
    assert [stats["letters"] for stats in done.stats] == [6, 8]
    assert [(row["id"], row["error"]) for row in done.quarantine] == [("r2", "ValueError: a bad text in the batch")]
    (step,) = done.steps
    assert (step.rows_in, step.rows_out, step.quarantined, dict(step.dropped)) == (
        4,
        2,
        1,
        {"video_duration_filter": 1},
    )


def test_a_mapper_makes_none_one_or_many_rows_and_a_death_costs_one_row(run: Run) -> None:
    texts = ["x", "none", "xx", "bad x", "x die", "xxx"]
    done = run(texts, "video_captioning_from_summarizer_mapper")
    assert done.texts == ["x0", "xx0", "xx1", "xxx0", "xxx1", "xxx2"]
    assert [row["id"] for row in done.rows] == ["r0", "r2", "r2", "r5", "r5", "r5"]
    assert ["odd" in row for row in done.rows] == [False] * 3 + [True] * 3, "no row gets fields of its neighbours"
    assert [row["id"] for row in done.quarantine] == ["r3", "r4"]
    assert "died on this row" in done.quarantine[1]["error"]
    assert done.steps[0].is_balanced() and done.steps[0].rows_made == 3


def test_a_mapper_that_forgets_where_rows_come_from_is_asked_row_by_row(run: Run) -> None:
    done = run(["a", "b"], "video_trajectory_overlay_mapper", extra=1)
    assert done.texts == ["A", "A", "B", "B"] and [row["id"] for row in done.rows] == ["r0", "r0", "r1", "r1"]


def test_new_fields_meta_and_pictures_reach_the_result_in_the_record_s_order(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"png")
    done = run(["abc", "b"], "video_tagging_from_audio_mapper", images=["p.png"], other={"k": [1]})
    first = done.rows[0]
    assert list(first)[:4] == ["id", "text", "images", "other"]
    assert first["query"] == "what is r0?" and "__dj__meta__" not in first
    assert done.side[0] == {"__dj__stats__": {}, "__dj__meta__": {"tags": ["a"]}}
    assert first["images"] == ["p.png", "/new/made.png"], "known paths are written as they were read"
    assert first["luck"] != done.rows[1]["luck"]


def test_luck_depends_on_the_row_and_not_on_the_workers(run: Run) -> None:
    texts = [f"t{n}" for n in range(30)]
    alone = [row["luck"] for row in run(texts, "video_tagging_from_audio_mapper").rows]
    changed = {"video_tagging_from_audio_mapper": {"data_juicer_python": None}}
    assert alone == [row["luck"] for row in run(texts, changed, "video_trajectory_overlay_mapper", workers=2).rows][::2]


def test_operators_over_all_rows(run: Run) -> None:
    done = run(["aa", "AA", "b", "aa", "ccc"], "video_deduplicator", {"image_ohem_selector": {"topk": 2}})
    assert done.texts == ["aa", "ccc"], "the first of equals stays; the order is the data set's"
    assert [dict(step.dropped) for step in done.steps] == [{"duplicate of an earlier row": 2}, {"not selected": 1}]


def test_groups_are_numbered_and_then_made_into_one_row_each(run: Run) -> None:
    done = run(["a1", "b1", "a2"], "naive_grouper", "nested_aggregator")
    assert done.texts == ["a1", "b1"]
    assert [json.loads(stats["nested_aggregator"])["all"] for stats in done.stats] == ["a1 a2", "b1"]


def test_image_tokens_are_data_juicer_s_there_and_ours_here(run: Run) -> None:
    done = run(["<image>\nx"], "video_trajectory_overlay_mapper")
    assert done.texts[0] == "<image>\nX".upper().replace("<IMAGE>", "<__DJ__IMAGE>"), "it sees its own spelling"


def test_what_cannot_be_made_stops_the_run_and_says_why(run: Run) -> None:
    with pytest.raises(BetterSynthError, match="too much is asked"):
        run(["a"], {"video_duration_filter": {"min_duration": 2000}})
    with pytest.raises(BetterSynthError, match="a_package_that_nobody_has"):
        run(["a"], "video_depth_estimation_mapper")


def test_a_process_that_hangs_is_given_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, "0.0")
    with pytest.raises(BetterSynthError, match="no answer in time"):
        run(["abc"] * 20, "video_trajectory_overlay_mapper")


def test_parameters_are_checked_without_data_juicer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    steps = [
        {"video_captioning_from_sumarizer_mapper": {}},
        {"video_captioning_from_summarizer_mapper": {"keep_tag_num": "many"}},
        {"video_duration_filter": {"min_duration": "long", "min_durration": 1}},
        "ray_repartition_pipeline",
        "vlm_ray_vllm_engine_pipeline",
    ]
    with pytest.raises(ConfigErrors) as caught:
        recipe(steps, tmp_path / "none.jsonl")
    shown = caught.value.render()
    assert (
        "did you mean 'video_captioning_from_summarizer_mapper'?" in shown and "did you mean 'min_duration'?" in shown
    )
    assert "process[1].video_captioning_from_summarizer_mapper.keep_tag_num" in shown
    assert "process[2].video_duration_filter.min_duration" in shown and "it belongs to Ray's executor" in shown


def test_without_data_juicer_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    if importlib.util.find_spec("data_juicer") is not None:
        pytest.skip("Data-Juicer is installed here")
    with pytest.raises(BetterSynthError) as caught:
        recipe(["video_captioning_from_summarizer_mapper"], tmp_path / "none.jsonl")
    shown = caught.value.render()
    assert (
        "bettersynth[data-juicer]" in shown
        and PYTHON_VARIABLE in shown
        and "process[0].video_captioning_from_summarizer_mapper" in shown
    )
    monkeypatch.setenv(PYTHON_VARIABLE, "/no/such/python")
    with pytest.raises(BetterSynthError, match="no Python at this place"):
        recipe(["video_captioning_from_summarizer_mapper"], tmp_path / "none.jsonl")


def test_the_challenge_track_takes_only_what_rewrites_texts_or_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    tracks = {
        name: operator_class(name).track
        for name in ("video_captioning_from_summarizer_mapper", "video_duration_filter")
    }
    assert tracks == {"video_captioning_from_summarizer_mapper": "open", "video_duration_filter": "challenge"}
    with pytest.raises(BetterSynthError, match="may add ids, questions or turns"):
        make_plan(recipe(["video_captioning_from_summarizer_mapper"], tmp_path / "none.jsonl", track="challenge"))


def test_every_operator_of_data_juicer_has_a_class_that_travels() -> None:
    assert len(all_facts()) == 228
    from bettersynth.ops.foreign._kinds import foreign_class

    for name in all_facts():
        operator = foreign_class(name)()
        again = pickle.loads(pickle.dumps(operator))
        assert again == operator and again.name == name
    with pytest.raises(ConfigError):
        OPERATORS.check("video_duration_filtr")


def test_the_table_of_operators_is_current() -> None:
    tool = load(ROOT / "tools" / "operator_table.py")
    facts = json.loads(tool.FACTS.read_text(encoding="utf-8"))["operators"]
    assert set(facts) == set(all_facts())
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(\w+)` \| \w+ \| native ", page, re.M)) | set(
        re.findall(r"`(\w+)`", page.split("##")[1])
    )
    assert named <= set(tool.native_names()), "run: python tools/operator_table.py"
    assert page == tool.table(facts, sorted(named)), "run: python tools/operator_table.py"


@pytest.mark.slow
def test_the_table_names_every_operator_of_ours() -> None:
    """Asked of the whole before it is shown, not of each new operator: that is one file and its test."""
    tool = load(ROOT / "tools" / "operator_table.py")
    facts = json.loads(tool.FACTS.read_text(encoding="utf-8"))["operators"]
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    assert page == tool.table(facts, tool.native_names()), "run: python tools/operator_table.py"


def test_a_failing_row_is_not_computed_again_and_again(run: Run, python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    own = type(server(str(python))).ask
    monkeypatch.setattr(
        "bettersynth.ops.foreign._process.Server.ask",
        lambda self, header, table=None: asked.append(len(table)) or own(self, header, table),
    )
    done = run([*["fine"] * 20, "bad", *["fine"] * 20], "video_duration_filter")
    assert len(done.rows) == 40 and asked == [41], "the halves are answered from memory"


def test_explain_tells_its_parameters(call: Any) -> None:
    page = call("explain", "video_duration_filter").out
    assert "Data-Juicer's video_duration_filter" in page and "min_duration" in page


@pytest.mark.parametrize("name", ["_server.py", "_server_catalogue.py"])
def test_the_server_side_imports_nothing_of_ours(name: str) -> None:
    code = "import sys; sys.argv = ['x']; import runpy; runpy.run_path(sys.stdin.read().strip(), run_name='server')"
    path = ROOT / "src" / "bettersynth" / "ops" / "foreign" / name
    more = "; print([name for name in sys.modules if name.startswith('bettersynth')])"
    done = subprocess.run(
        [sys.executable, "-c", code + more], input=str(path), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
