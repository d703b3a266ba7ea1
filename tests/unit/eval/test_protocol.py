from __future__ import annotations

import pytest

from bettersynth.core.errors import ConfigError, ProvenanceError
from bettersynth.core.record import EvalResult, Interval
from bettersynth.eval.protocol import PROVENANCE_KEYS, TASKS, known_protocols, require_provenance, resolve, task_module


def test_a_task_stands_for_all_its_protocols_but_not_for_variants():
    assert resolve(["textvqa", "mmbench", "textvqa-ocr"]) == [
        ("textvqa", "textvqa-ocr"),
        ("textvqa", "textvqa-noocr"),
        ("mmbench", "mmbench"),
    ]
    assert resolve(["mmbench@kit"]) == [("mmbench", "mmbench@kit")]


@pytest.mark.parametrize(("name", "near"), [("textvqa-nocr", "textvqa-noocr"), ("mmbensh", "mmbench")])
def test_unknown_names_get_the_nearest_one(name, near):
    with pytest.raises(ConfigError) as caught:
        resolve([name])
    assert near in (caught.value.hint or "")


def test_every_task_defines_the_contract():
    assert {"textvqa", "mmbench"} <= set(TASKS.names())
    for name in TASKS.names():
        module = task_module(name)
        assert module.PROMPTS and module.METRICS and module.CHANCE and module.MAX_NEW_TOKENS > 0
        assert all(callable(getattr(module, f)) for f in ("samples", "prompt", "evaluate", "write_kit_files"))
        assert name in {protocol.partition("-")[0].partition("@")[0] for protocol in known_protocols()}


@pytest.mark.parametrize("missing", [*PROVENANCE_KEYS, "predictions"])
def test_a_score_without_provenance_is_refused(missing):
    stamp = dict.fromkeys((*PROVENANCE_KEYS, "predictions"), "d") | {missing: ""}
    result = EvalResult("textvqa", "textvqa-ocr", Interval(1, 0, 2), 3, 0.0, "none", True, provenance=stamp)
    with pytest.raises(ProvenanceError, match=missing):
        require_provenance(result)
