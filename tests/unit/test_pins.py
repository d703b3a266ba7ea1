"""The tested versions in constraints.txt: what is installed keeps to them, and every extra goes with them."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
GRADIO = {"pillow": "<13", "tomlkit": "<0.15"}
"""What every Gradio up to 6.31 asks of packages that others are installed with."""


def pins() -> dict[str, SpecifierSet]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return {pin.name.lower(): pin.specifier for pin in map(Requirement, filter(None, lines))}


def test_what_is_installed_keeps_to_the_pins():
    found = {}
    for name, allowed in pins().items():
        try:
            found[name] = (version(name), allowed)
        except PackageNotFoundError:
            continue  # of an extra that is not installed here
    assert found and {name: pair for name, pair in found.items() if pair[0] not in pair[1]} == {}


def test_the_pins_leave_room_for_the_web_extra():
    """A range's lower end is the version that goes with Gradio, its upper end the one that is installed otherwise."""
    for name, asked in GRADIO.items():
        ends = {pin.operator: pin.version for pin in pins()[name]}
        assert ends[">="] in SpecifierSet(asked) and ends["<="] not in SpecifierSet(asked), name


@pytest.mark.network
@pytest.mark.parametrize("extra", ["web", "hub", "metrics", "tracking"])
def test_pip_resolves_an_extra_with_the_pins(extra):
    words = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    done = subprocess.run(
        [*words, "-c", "constraints.txt", f".[{extra}]"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
