"""Print a shell completion script (bash, zsh, tcsh)."""

from __future__ import annotations

import argparse

import shtab

from bettersynth.cli.main import COMMANDS, build_parser, ordered_commands
from bettersynth.core.lang import t


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``completion``."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help=t("e.g. bettersynth completion bash > FILE"))


def run(args: argparse.Namespace) -> int:
    """Build one parser with every command as a sub-command and let shtab write the script."""
    whole = argparse.ArgumentParser(prog="bettersynth")
    commands = whole.add_subparsers()
    for name in ordered_commands():
        parent = build_parser(name)
        commands.add_parser(name, parents=[parent], add_help=False, help=COMMANDS.summary(name))
    print(shtab.complete(whole, shell=args.shell))
    return 0
