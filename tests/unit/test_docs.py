"""The pages of docs/: current where they are written from code, true where they show commands, recipes and links."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "README.zh.md", ROOT / "CONTRIBUTING.md"])
GENERATED = ("commands.md", "operators.md")


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / "tools" / "reference_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", _text(page), re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Words of every ``bettersynth`` command that a page shows, in blocks and between backquotes."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    if page.name not in GENERATED:
        lines += re.findall(r"`(bettersynth [^`…]+)`", re.sub(r"```.*?```", "", _text(page), flags=re.DOTALL))
    found = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in found if words[:1] == ["bettersynth"]]


@pytest.mark.parametrize("name", sorted(_tool().PAGES))
def test_pages_written_from_code_are_current(name: str):
    assert _text(ROOT / "docs" / name) == _tool().PAGES[name](), "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_is_one_that_the_parser_takes(page: Path):
    from bettersynth.cli.main import COMMANDS, build_parser

    for words in commands(page):
        if words[0].startswith("--"):
            continue
        assert words[0] in COMMANDS, words
        if words[0] == "explain":  # what it explains must be there, placeholders aside
            assert len(words) == 1 or words[1] == "NAME" or _is_known(words[1]), words
        rewrite = getattr(COMMANDS.module(words[0]), "rewrite", list)
        build_parser(words[0]).parse_args(rewrite(words[1:]))  # raises what a user would see


def _is_known(name: str) -> bool:
    from bettersynth.cli.commands import explain

    kinds = list(explain._kinds())
    plurals = [*explain._PLURALS, *(f"{kind}s" for kind in kinds)]
    return name in plurals or any(name in explain._names(kind) for kind in kinds)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", _text(page)):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.name)
def test_recipes_and_experiments_shown_are_valid(page: Path):
    from bettersynth.config.experiment import ExperimentConfig
    from bettersynth.config.load import parse_yaml, validate
    from bettersynth.config.recipe import build_recipe
    from bettersynth.engine.plan import check_steps, plan

    for block in blocks(page, "yaml"):
        document = parse_yaml(block, name=page.name)
        if "conditions" in document.data:
            validate(ExperimentConfig, document)
        else:
            assert plan(build_recipe(document, base=ROOT, check_steps=check_steps)).stages


def test_both_first_steps_show_the_same_commands_and_recipe():
    english, chinese = (ROOT / "docs" / name for name in ("first-steps.md", "first-steps.zh.md"))
    assert commands(english) == commands(chinese)
    assert [yaml.safe_load(b) for b in blocks(english, "yaml")] == [yaml.safe_load(b) for b in blocks(chinese, "yaml")]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_first_steps_work_as_printed(lang: str, call, tmp_path: Path):
    from PIL import Image

    here = Path.cwd()  # the fixture's empty folder
    (here / "pictures").mkdir()
    lines = [{"image": f"{n}.jpg", "caption": f"a picture of {n} red lamps"} for n in range(30)]
    for n in range(30):
        Image.new("RGB", (80 + n, 80), (n * 8, 20, 90)).save(here / "pictures" / f"{n}.jpg")
    (here / "pictures" / "3.jpg").write_bytes((here / "pictures" / "4.jpg").read_bytes()[:200])
    lines += [dict(lines[5]), {"image": "gone.jpg", "caption": "this picture is not there"}]
    lines += [{"image": "6.jpg", "caption": "短"}, {"image": "7.jpg", "caption": "七盏红色的灯"}]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines) + "{not json\n"
    (here / "pairs.jsonl").write_text(text, encoding="utf-8")
    page = ROOT / "docs" / ("first-steps.md" if lang == "en" else "first-steps.zh.md")
    (here / "clean.yaml").write_text(blocks(page, "yaml")[0], encoding="utf-8")
    for line in blocks(page, "bash")[0].splitlines():
        words = shlex.split(line, comments=True)[1:]
        done = call(*words, "--lang", lang)
        assert done.out.strip() and "Traceback" not in done.err
    shown = call("inspect", "clean", "--json").out
    assert "image not found" in shown
    facts = json.loads((here / "clean" / "manifest.json").read_text(encoding="utf-8"))["facts"]
    assert facts["rows_out"] == 34 - 4 and facts["quarantined"] == 2  # short, twice the same; damaged, missing
    assert (here / "clean" / "report" / "report.html").is_file() and (here / "look").is_dir()


def test_every_test_that_a_page_names_is_there():
    known = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", _text(path))
    }
    named = re.findall(r"`(test_\w+)`", _text(ROOT / "docs" / "original.md"))
    assert len(named) > 40
    assert sorted(set(named) - known) == []
