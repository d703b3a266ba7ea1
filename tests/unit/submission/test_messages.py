"""Every reason and hint of submissions and kits speaks Chinese too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import bettersynth.kit
import bettersynth.submission
from bettersynth.config import submission as config
from bettersynth.core.lang import catalogue

CALLS = ("t", "refuse", "tell")


def test_every_template_has_a_translation_with_the_same_fields() -> None:
    known = catalogue()
    files = [Path(config.__file__)]
    for package in (bettersynth.submission, bettersynth.kit):
        files += sorted(Path(package.__path__[0]).glob("*.py"))
    found = 0
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in CALLS:
                english = node.args[0].value
                assert english in known, f"{path.name}: {english}"
                fields = re.findall(r"{\w+}", english)
                assert sorted(fields) == sorted(re.findall(r"{\w+}", known[english])), english
                found += 1
    assert found > 90
