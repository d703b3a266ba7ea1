from __future__ import annotations

import pytest

from bettersynth.config.eval import EvalConfig, load_eval
from bettersynth.config.experiment import load_experiment
from bettersynth.core.errors import ConfigErrors

TEXT = """
name: three
seeds: [1, 2]
preset: demo
conditions:
  - {name: raw, role: baseline}
  - {name: balanced}
  - {name: balanced_qa, role: open, note: adds questions}
"""


def test_an_experiment_is_read_with_its_baseline(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(TEXT)
    config = load_experiment(path, ["workers=2"])
    assert (config.workers, config.baseline_name, config.seeds) == (2, "raw", (1, 2))
    assert config.condition("balanced_qa").role == "open" and config.condition("balanced").role == "strategy"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: balanced}", "name: raw}", "named twice"),
        ("[1, 2]", "[1, 1]", "written twice"),
        ("preset: demo", "baseline: other", "not one of the conditions"),
        ("name: balanced}", "name: balanced, role: baseline}", "more than one"),
        ("name: balanced}", "name: ../x}", "pattern"),
    ],
)
def test_contradictions_are_refused(tmp_path, old, new, message):
    path = tmp_path / "experiment.yaml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(Exception, match=message):
        load_experiment(path)


def test_all_mistakes_of_an_evaluation_at_once(tmp_path):
    path = tmp_path / "eval.yaml"
    path.write_text("task: [textvqa]\nbatch_size: 0\ndecoding: {max_new_token: 4}\n")
    with pytest.raises(ConfigErrors) as caught:
        load_eval(path)
    shown = caught.value.render()
    assert "eval.yaml:1 task" in shown and "eval.yaml:2 batch_size" in shown
    assert "eval.yaml:3 decoding.max_new_token" in shown and "max_new_tokens" in shown
    assert EvalConfig().decoding.max_new_tokens is None
