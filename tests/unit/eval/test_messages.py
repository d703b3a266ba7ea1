"""Every message of evaluation and comparison has its Chinese form, with the same fields."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import bettersynth
from bettersynth.core.lang import catalogue

PACKAGE = Path(bettersynth.__file__).parent


def _templates():
    names = ("stats", "trials", "compare", "tables", "equal_compute", "loop", "workspace")
    paths = [*(PACKAGE / "eval").rglob("*.py"), *(PACKAGE / "experiment" / f"{name}.py" for name in names)]
    for path in sorted(paths):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if is_call and node.func.id == "t" and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value


def _fields(template):
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_all_templates_are_translated_with_the_same_fields():
    templates = set(_templates())
    known = catalogue()
    assert not sorted(templates - set(known))
    assert [text for text in templates if _fields(text) != _fields(known[text])] == []
