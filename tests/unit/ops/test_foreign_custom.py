"""Operators of the user's that are written for Data-Juicer's classes, with a stand-in for it and (slow) with itself."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import build_recipe
from bettersynth.core.errors import BetterSynthError
from bettersynth.engine.export_data_juicer import export_data_juicer
from bettersynth.engine.local import accounting_of, process
from bettersynth.engine.plan import check_steps
from bettersynth.engine.plan import plan as make_plan
from bettersynth.ops._catalog import OPERATORS
from bettersynth.ops.foreign import _facts, _kinds
from bettersynth.ops.foreign._process import PYTHON_VARIABLE, Server, server

REAL = os.environ.get(PYTHON_VARIABLE, "")
HEAD = "from data_juicer.ops.base_op import OPERATORS, Deduplicator, Filter, Mapper, Selector\n"
ROWWISE = (
    HEAD
    + """
import os

NAME = "my_upper_mapper"

@OPERATORS.register_module(NAME)
class Upper(Mapper):
    _batched_op = batched = True
    def __init__(self, suffix: str = "!", times: int = 1, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.suffix, self.times = suffix, times
    def process_batched(self, samples):
        for text in samples["text"]:
            if "boom" in text:
                raise ValueError("no booms")
            if "die" in text:
                os._exit(3)
        samples["text"] = [text.upper() + self.suffix * self.times for text in samples["text"]]
        return samples

@OPERATORS.register_module("my_count_mapper")
class Count(Mapper):
    def process_single(self, sample):
        sample["n_words"] = len(sample["text"].split())
        return sample

@OPERATORS.register_module("my_short_filter")
class Short(Filter):
    def __init__(self, most: int, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.most = most
    def compute_stats_single(self, sample, context=False):
        sample["__dj__stats__"]["my_len"] = len(sample["text"])
        return sample
    def process_single(self, sample):
        return sample["__dj__stats__"]["my_len"] <= self.most
"""
)
PACKAGE = {
    "__init__.py": "from . import choosing\n",
    "helper.py": "def first(text):\n    return text.lower()[:1]\n",
    "choosing.py": HEAD
    + """
from .helper import first

@OPERATORS.register_module("my_first_deduplicator")
class First(Deduplicator):
    def compute_hash(self, sample):
        sample["__dj__hash"] = first(sample["text"])
        return sample
    def process(self, dataset, show_num=0):
        hashes = list(dataset["__dj__hash"])
        return dataset.select([n for n, value in enumerate(hashes) if value not in hashes[:n]]), {}

@OPERATORS.register_module("my_head_selector")
class Head(Selector):
    def __init__(self, num: int = 2, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.num = num
    def process(self, dataset):
        return dataset.select(list(range(self.num)))
""",
}
STEPS = [
    {"my_upper_mapper": {"suffix": "?", "times": 2}},
    "my_count_mapper",
    {"my_short_filter": {"most": 14}},
    "my_first_deduplicator",
    {"my_head_selector": {"num": 3}},
]
TEXTS = ["apple pie", "banana", "Another one", "cherries", "dates and figs and more", "elder"]
RESULT = ["APPLE PIE??", "BANANA??", "CHERRIES??"]


def _fake(folder: Path) -> Path:
    path = Path(__file__).with_name("fake_data_juicer.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(module.install(folder))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _fake(tmp_path_factory.mktemp("fake"))


@pytest.fixture(autouse=True)
def own(tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files of the user in ``tmp_path``; what they declare is forgotten afterwards."""
    (tmp_path / "my_ops.py").write_text(ROWWISE)
    for name, text in PACKAGE.items():
        (tmp_path / "my_package" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "my_package" / name).write_text(text)
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    monkeypatch.setattr(_facts, "_declared", {})
    server.cache_clear()
    yield
    server(str(python)).close()


def recipe(folder: Path, steps: Any, paths: Any = ("my_ops.py", "my_package"), **keys: Any) -> Any:
    paths = [str(folder / path) for path in paths]
    document = {"dataset_path": str(folder / "rows.jsonl"), "max_failed_ratio": 0.9, "custom_operator_paths": paths}
    text = json.dumps({**document, "process": steps, **keys})
    return build_recipe(parse_yaml(text, name="recipe.yaml"), base=folder, check_steps=check_steps)


def run(folder: Path, texts: list[str], steps: Any = STEPS, *, workers: int = 1, **more: Any) -> Any:
    rows = [{"id": f"r{number}", "text": text, "images": []} for number, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return process(recipe(folder, steps, **more), out=folder / "out", workers=workers)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts_in(folder: Path) -> list[str]:
    return [row["text"] for row in lines(folder / "out" / "processed_data.jsonl")]


def refused(folder: Path, steps: Any, paths: Any = ("my_ops.py", "my_package"), **keys: Any) -> str:
    with pytest.raises(BetterSynthError) as caught:
        recipe(folder, steps, paths, **keys)
    return caught.value.render()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_and_a_package_run_inside_our_accounting(tmp_path: Path, workers: int) -> None:
    times = 1 if workers == 1 else 200  # more rows than one shard holds
    texts = [*TEXTS * times, "a boom", "to die"]
    artifact = run(tmp_path, texts, workers=workers)
    assert texts_in(tmp_path) == RESULT
    steps = accounting_of(artifact)[1:]
    assert all(step.is_balanced() for step in steps)
    upper, count, short, first, head = steps
    assert (upper.quarantined, count.rows_in) == (2, 6 * times)
    assert dict(short.dropped) == {"my_short_filter": times}
    assert first.rows_out == 4 and dict(head.dropped) == {"not selected": 1}
    failed, died = lines(tmp_path / "out" / "quarantine.jsonl")
    assert failed["error"] == "ValueError: no booms (my_ops.py, line 16)"
    assert "died on this row" in died["error"]
    assert lines(tmp_path / "out" / "processed_data.jsonl")[0]["n_words"] == 2
    stats = lines(tmp_path / "out" / "processed_data_stats.jsonl")[0]["__dj__stats__"]
    assert stats["my_len"] == 11
    assert not list(tmp_path.rglob("__pycache__")), "nothing is left beside the user's files"


def test_all_mistakes_are_told_before_any_work(tmp_path: Path) -> None:
    steps = [
        "my_uper_mapper",
        {"my_upper_mapper": {"sufix": "?", "times": "two"}},
        "my_short_filter",
        {"my_head_selector": {"num": 1.5}},
        {"text_length_filter": {"min_len": "x"}},
    ]
    shown = refused(tmp_path, steps)
    assert "6 problems" in shown
    assert "did you mean 'my_upper_mapper'?" in shown and "did you mean 'suffix'?" in shown
    assert "process[1].my_upper_mapper.times" in shown and "my_short_filter needs most" in shown
    assert "process[3].my_head_selector.num" in shown and "process[4].text_length_filter.min_len" in shown


def test_without_data_juicer_what_is_needed_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    if importlib.util.find_spec("data_juicer") is not None:
        pytest.skip("Data-Juicer is installed here")
    shown = refused(tmp_path, STEPS)
    assert "cannot be loaded by this Python" in shown and "No module named 'data_juicer'" in shown
    monkeypatch.delenv(PYTHON_VARIABLE)
    shown = refused(tmp_path, [*STEPS, "no_such_mapper"])
    assert "2 problems" in shown and "custom_operator_paths" in shown, "steps of these files are no mistakes"
    assert "bettersynth[data-juicer]" in shown and PYTHON_VARIABLE in shown and "my_ops.py" in shown


BROKEN = {
    "def work():\n    return 1 / 0\nwork()\n": ("cannot be loaded", "bad.py, line 3: ZeroDivisionError"),
    "def x(:\n": ("cannot be loaded", "bad.py, line 2: SyntaxError"),
    "import nobody_has_this\n": ("cannot be loaded", "bad.py, line 2: ModuleNotFoundError"),
    "import sys\nsys.exit(4)\n": ("cannot be loaded", "bad.py, line 3: SystemExit: 4"),
    "import os\nprint('bye')\nos._exit(7)\n": ("died while it loaded this file", "bad.py: it ended with 7: bye"),
    "import os\nos.kill(os.getpid(), 9)\n": ("died while it loaded this file", "bad.py: it ended with -9"),
    "": ("these files hold no operator", "bad.py"),
    "@OPERATORS.register_module('video_duration_filter')\nclass X(Filter): pass\n": ("cannot be loaded", "already"),
    "@OPERATORS.register_module('recaption_mapper')\nclass X(Mapper): pass\n": (
        "may not take a name that exists",
        "recaption_mapper",
    ),
    "@OPERATORS.register_module('x_mapper')\nclass X(Mapper):\n    def __init__(self, name, **kwargs): pass\n": (
        "names that are taken here",
        "bad.py: name",
    ),
    "@OPERATORS.register_module('x_mapper')\nclass X(Mapper):\n    def __init__(self, least=1): pass\n": (
        "x_mapper does not take the keys",
        "bad.py",
    ),
    "import bettersynth.ops.base\n": ("are mixed", "bad.py"),
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.py").write_text(HEAD + text)
    shown = refused(tmp_path, [], ["bad.py"])
    assert all(part in shown for part in BROKEN[text]), shown


def test_a_broken_file_hides_no_mistake_of_another(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(HEAD + "NAME = 'x_mapper'\n1 / 0\n")
    shown = refused(tmp_path, ["x_mapper", {"my_upper_mapper": {"sufix": 1}}], ["bad.py", "my_ops.py"])
    assert "2 problems" in shown and "bad.py, line 3" in shown and "'sufix'" in shown


def test_edited_files_give_new_results_and_untouched_ones_are_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask: Callable[..., Any] = Server.ask
    monkeypatch.setattr(
        Server, "ask", lambda self, header, table=None: asked.append(header["do"]) or ask(self, header, table)
    )
    run(tmp_path, TEXTS)
    assert asked.count("work") > 0
    asked.clear()
    run(tmp_path, TEXTS)
    assert not asked
    (tmp_path / "my_ops.py").write_text(ROWWISE.replace(".upper()", ".title()"))
    run(tmp_path, TEXTS)
    assert texts_in(tmp_path)[0] == "Apple Pie??"
    (tmp_path / "my_package" / "helper.py").write_text("def first(text):\n    return text\n")
    run(tmp_path, TEXTS)
    assert texts_in(tmp_path)[2] == "Another One??"


def test_a_file_edited_while_a_run_goes_on_stops_it(tmp_path: Path, python: Path, batch: Any, ctx: Any) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (operator,) = make_plan(recipe(tmp_path, ["my_upper_mapper"])).operators
    rows = batch(["a"])
    assert [orjson.loads(found["row"])["text"] for found in _kinds.ask_rows(operator, rows, ctx)] == ["A!"]
    (tmp_path / "my_ops.py").write_text(ROWWISE + "# edited")
    server(str(python)).close()  # a process that starts now would load the new text
    with pytest.raises(BetterSynthError, match="changed since the recipe was read"):
        _kinds.ask_rows(operator, batch(["b"]), ctx)


def test_an_operator_travels_to_a_process_that_has_not_read_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    operator = make_plan(recipe(tmp_path, [{"my_upper_mapper": {"times": 3}}])).operators[0]
    sent = pickle.dumps(operator)
    monkeypatch.setattr(_facts, "_declared", {})
    monkeypatch.setattr(_kinds, "_classes", {})
    again: Any = pickle.loads(sent)
    assert again.name == "my_upper_mapper" and _kinds.given(again) == {"times": 3}
    assert again.facts == operator.facts and again.code_digest == operator.code_digest != ""  # type: ignore[attr-defined]


OURS = '''
"""Lower case."""
from dataclasses import dataclass
from bettersynth.ops.base import TextMapper

@dataclass(frozen=True, kw_only=True, slots=True)
class WhisperMapper(TextMapper):
    """Lower case."""
    def rewrite(self, text):
        return text.lower()
'''


def test_a_folder_may_hold_files_of_both_kinds_and_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OPERATORS, "__dict__", dict(OPERATORS.__dict__) | {"_modules": dict(OPERATORS._modules)})
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "whisper_mapper.py").write_text(OURS)
    (folder / "a_helper.py").write_text("MARK = '#'\n")
    (folder / "theirs.py").write_text(ROWWISE.replace('"!"', "__import__('a_helper').MARK"))
    run(tmp_path, ["Abc"], ["my_upper_mapper", "whisper_mapper"], paths=["both"])
    assert texts_in(tmp_path) == ["abc#"]
    (tmp_path / "my_package" / "ours.py").write_text(OURS)
    assert "are mixed" in refused(tmp_path, [], ["my_package"])


def test_mappers_of_which_nothing_is_known_stay_out_of_the_challenge_track(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(BetterSynthError) as caught:
        make_plan(recipe(tmp_path, STEPS, track="challenge"))
    shown = caught.value.render()
    assert "my_upper_mapper may add" in shown and "my_count_mapper may add" in shown and "my_short_filter" not in shown


def test_an_exported_recipe_brings_the_files_along(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    planned = make_plan(recipe(tmp_path, STEPS))
    out = tmp_path / "export"
    export_data_juicer(planned, out)
    listed = parse_yaml((out / "recipe.yaml").read_text(encoding="utf-8"), name="r").data["custom_operator_paths"]
    assert listed[1:] == ["./custom_operators/my_ops.py", "./custom_operators/my_package"]
    assert all((out / path).exists() for path in listed)
    with pytest.raises(BetterSynthError, match="lies in a folder of custom operators"):
        export_data_juicer(planned, tmp_path / "my_package" / "export")
    shown = refused(tmp_path, ["bettersynth_start"], [str(out / "bettersynth_operators")])
    assert "were exported for dj-process" in shown and "unknown operator" not in shown


def test_inspect_tells_of_them(tmp_path: Path, call: Any) -> None:
    run(tmp_path, [*TEXTS, "a boom"])
    shown = call("inspect", tmp_path / "out").out
    assert "my_upper_mapper" in shown and "no booms" in shown and "my_first_deduplicator" in shown


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="needs BETTERSYNTH_DATA_JUICER_PYTHON")
def test_rows_are_those_that_data_juicer_itself_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, REAL)
    artifact = run(tmp_path, [*TEXTS, "a boom"], workers=2)
    assert [step.quarantined for step in accounting_of(artifact)] == [0, 1, 0, 0, 0, 0]
    run(tmp_path, TEXTS)
    ours = lines(tmp_path / "out" / "processed_data.jsonl")
    document = {
        "dataset_path": "./rows.jsonl",
        "export_path": "./theirs/res.jsonl",
        "np": 1,
        "custom_operator_paths": ["./my_ops.py", "./my_package"],
        "process": [step if isinstance(step, dict) else {step: {}} for step in STEPS],
    }
    (tmp_path / "theirs.yaml").write_text(json.dumps(document))
    quiet = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "c")}
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | quiet
    command = [REAL, "-m", "data_juicer.tools.process_data", "--config", "theirs.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = lines(tmp_path / "theirs" / "res.jsonl")
    assert [row["text"] for row in ours] == RESULT
    assert ours == theirs
