"""The README's commands work as printed, in both languages, on a machine that has run the quick demo."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDS_MORE = ("bettersynth demo", "bettersynth compare")
"""Run elsewhere: the demo by the shared fixture, the comparison (an hour) by its own command; here only planned."""


def commands(readme: str) -> list[str]:
    """The ``bettersynth`` lines of the page's bash blocks, comments cut off."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("bettersynth ")]


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_every_command_of_the_readme_runs(readme: str, quick_demo: Path, program):
    found = commands(readme)
    assert len(found) >= 5
    for line in found:
        words = shlex.split(line)[1:]
        if line.startswith(NEEDS_MORE):
            words = [*words, "--plan"]
        done = program(*words, cwd=quick_demo, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_both_readmes_show_the_same_commands():
    assert commands("README.md") == commands("README.zh.md")


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_make_targets_named_in_the_readme_exist(readme: str):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make ([a-z-]+)", (ROOT / readme).read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
