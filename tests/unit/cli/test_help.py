"""Help in both languages, and argparse's complaints in ours."""

import ast
from pathlib import Path

import pytest

import bettersynth.cli as cli
import bettersynth.experiment as experiment
from bettersynth.cli.main import _COMPLAINTS, COMMANDS, ordered_commands
from bettersynth.core.lang import catalogue


def _templates(package):
    for path in sorted(Path(package.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_t = isinstance(node, ast.Call) and getattr(node.func, "id", None) == "t" and node.args
            if is_t and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value


def test_everything_that_commands_say_is_there_in_chinese():
    said = {*_templates(cli), *_templates(experiment), *(ours for _, ours in _COMPLAINTS)}
    for name in ordered_commands():
        first, *rest = [part.strip() for part in COMMANDS.module(name).__doc__.split("\n\n")]
        said |= {first.rstrip("."), *rest}
    assert sorted(said - set(catalogue())) == []


@pytest.mark.parametrize("name", ordered_commands())
def test_help_is_in_the_language_asked_for(name, call, capsys):
    for lang, words in (("en", ("usage: ", "options:", "show this help")), ("zh", ("用法：", "选项", "显示本帮助"))):
        with pytest.raises(SystemExit) as stop:
            call(name, "--help", "--lang", lang)
        text = capsys.readouterr().out
        assert stop.value.code == 0 and all(word in text for word in words)


@pytest.mark.parametrize(
    ("words", "english", "chinese"),
    [
        (("convert",), "llava-to-dj|llava-to-t2i|sample|bagel-groups, --input, --output", "需要："),
        (("run", "everything"), "cannot be 'everything'; one of: 'all'", "不能是"),
        (("run", "--seeds", "x"), "--seeds cannot be 'x': needed is a whole number", "不能是"),
        (("run", "--seeds"), "--seeds needs a value", "需要一个值"),
        (("train", "--check-batch", "1"), "--check-batch needs 3 values", "需要 3 个值"),
        (("doctor", "--nothing"), "unknown arguments: --nothing", "未知参数"),
    ],
)
def test_complaints_are_ours(words, english, chinese, call):
    assert english in call(*words, "--lang", "en", expect=2).err
    assert chinese in call(*words, "--lang", "zh", expect=2).err


def test_strategies_and_presets_are_listed_by_what_they_are_for(call):
    said = {**call("explain", "strategies", "--json").data, **call("explain", "presets", "--json").data}
    assert said["raw"].startswith("The seed set as it comes") and said["demo_quick"].startswith("The quick demo")
    assert not [name for name, words in said.items() if not words or words.startswith("bettersynth ")]


def test_what_a_kit_lacks_is_fetched_by_its_script(call, tmp_path):
    call("init", tmp_path / "kit", "--track", "open")
    assert "download.sh" in call("run", "--workspace", tmp_path / "kit", "--plan", expect=2).err


@pytest.mark.parametrize("name", ["image_aesthetics_filter", "text_length_filter"])
def test_facts_of_an_operator_are_no_python(call, name):
    facts = call("explain", name).out.split("fact  ", 1)[1]
    assert "mark_only" in facts and not [word for word in ("('", "()", "None", "False") if word in facts]
    assert f"reads    {'images' if name.startswith('image') else 'text'}\n" in facts


def test_what_explain_lists_is_told_in_chinese(call):
    shown = call("explain", "strategies", "--lang", "zh").out
    english = call("explain", "strategies", "--json").data
    assert not [name for name, summary in english.items() if summary not in catalogue()]
    assert catalogue()[english["raw"]] in shown
    page = call("explain", "text_length_filter", "--lang", "zh").out
    assert "保留字符数在范围内的文本。" in page and "min_len" in page
    assert "保留字符数" not in call("explain", "text_length_filter").out
