"""Stage 2 alone begins with the stage 1 of its name, and says with what it begins."""

from __future__ import annotations

import argparse

import pytest

from bettersynth.cli.commands.train import _choose_start
from bettersynth.core.artifact import write_manifest
from bettersynth.core.errors import ConfigError
from bettersynth.train.stages import stage_folder


@pytest.fixture
def args(tmp_path):
    return argparse.Namespace(out=tmp_path, name="mine")


def test_a_finished_stage_1_of_the_name_is_used(args, capsys):
    folder = stage_folder(args.out, 1, "mine")
    folder.mkdir(parents=True)
    write_manifest(folder, kind="checkpoint", facts={}, files=[], parents={}, run={})
    overrides = {}
    _choose_start(args, overrides)
    assert overrides == {"finetune": {"adapter": str(folder)}}
    assert str(folder) in capsys.readouterr().err


def test_without_one_it_is_said(args, capsys):
    overrides = {}
    _choose_start(args, overrides)
    assert overrides == {"finetune": {}} and "untrained projector" in capsys.readouterr().err


def test_an_unfinished_one_is_refused(args):
    stage_folder(args.out, 1, "mine").mkdir(parents=True)
    with pytest.raises(ConfigError, match="not finished"):
        _choose_start(args, {})


def test_a_named_start_wins(args, capsys):
    stage_folder(args.out, 1, "mine").mkdir(parents=True)
    overrides = {"finetune": {"init_from": "elsewhere"}}
    _choose_start(args, overrides)
    assert overrides == {"finetune": {"init_from": "elsewhere"}} and capsys.readouterr().err == ""
