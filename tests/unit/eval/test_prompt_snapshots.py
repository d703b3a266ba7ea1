"""The exact prompt of every protocol is kept in a file, so that a refactor cannot move a score unseen."""

from __future__ import annotations

from pathlib import Path

from bettersynth.eval.protocol import known_protocols
from bettersynth.eval.runner import ask, open_target

SNAPSHOT = Path(__file__).resolve().parents[2] / "snapshots" / "eval_prompts.txt"


def test_prompts_are_what_they_were(data):
    parts = []
    for protocol in known_protocols():
        asked = ask(open_target(protocol, data))
        parts += [f"=== {protocol} {question.key}\n{asked.prompts[question.key]}\n" for question in asked.questions]
    assert "".join(parts) == SNAPSHOT.read_text(encoding="utf-8")
