"""Start-up, help, typos and exit codes of the command line."""

import json
import resource
import subprocess
import sys

import pytest

from bettersynth.cli.main import build_parser, main, ordered_commands

HEAVY = ("torch", "numpy", "pyarrow", "pydantic", "transformers", "PIL", "yaml", "scipy")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from bettersynth.cli.main import main; main(['--help']);"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for name in ordered_commands():
        assert f"  {name}" in done.stdout


def test_a_plain_recipe_imports_what_it_uses(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "some words"}\n{"text": ""}\n')
    (tmp_path / "r.yaml").write_text("dataset_path: d.jsonl\nprocess: [{text_length_filter: {min_len: 1}}]\n")
    unused = ("pydantic", "pyarrow.compute", "pyarrow.parquet", "numpy.ma", "pandas", "torch", "importlib.metadata")
    code = (
        "import sys; from bettersynth.cli.main import main; main(['process', 'r.yaml', '--np', '1', '--out', 'o']);"
        f"print([m for m in {unused!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.strip().endswith("[]")
    assert len((tmp_path / "o" / "processed_data.jsonl").read_text().splitlines()) == 1


def test_help_stays_under_its_cpu_budget():
    def cpu() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    spent = []
    for _ in range(3):
        before = cpu()
        subprocess.run([sys.executable, "-m", "bettersynth", "--help"], capture_output=True, check=True)
        spent.append(cpu() - before)
    assert min(spent) < 0.3


@pytest.mark.parametrize("name", ordered_commands())
def test_every_command_has_a_parser_and_help_of_one_screen(name):
    text = build_parser(name).format_help()
    assert len(text.splitlines()) <= 48, f"help of {name} does not fit a screen"


def test_mistyped_command_and_flag_get_the_nearest_name(capsys):
    assert main(["doctr"]) == 2
    assert "did you mean 'doctor'?" in capsys.readouterr().err
    assert main(["doctor", "--jsn"]) == 2
    assert "did you mean '--json'?" in capsys.readouterr().err


def test_language_flag_before_or_after_the_command(capsys):
    assert main(["--lang", "zh", "doctr"]) == 2
    assert "未知命令" in capsys.readouterr().err
    assert main(["doctr", "--lang=zh"]) == 2
    assert "未知命令" in capsys.readouterr().err


def test_doctor_reports_core_packages_as_json(capsys):
    assert main(["doctor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"python", "numpy", "device", "threads"} <= {row["what"] for row in rows}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_names_every_command(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in ordered_commands())
