"""Entry point of ``bettersynth``: find the command's file, parse, run, and turn errors into messages and exit codes.

Nothing heavy is imported here: ``--help`` reads the first docstring line of each command file without importing it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from bettersynth import __version__
from bettersynth.core.errors import BetterSynthError, ConfigError, PeerLost
from bettersynth.core.lang import LANGUAGES, set_language, t
from bettersynth.core.registry import Registry, did_you_mean

COMMANDS = Registry("command", "bettersynth.cli.commands", "bettersynth.commands")
_ORDER = (
    *("demo", "init", "explore", "process", "run", "train", "eval", "score", "compare"),
    *("generate", "serve", "metrics", "analyze", "convert"),
    *("export", "report", "submit", "inspect", "diff", "explain", "doctor", "completion"),
)


_COMPLAINTS = (
    (r"the following arguments are required: (?P<names>.*)", "needed: {names}"),
    (r"unrecognized arguments: (?P<names>.*)", "unknown arguments: {names}"),
    (r"argument (?P<name>[^:]+): expected one argument", "{name} needs a value"),
    (r"argument (?P<name>[^:]+): expected (?P<n>\d+) arguments", "{name} needs {n} values"),
    (
        r"argument (?P<name>[^:]+): invalid choice: (?P<got>.*) \(choose from (?P<names>.*)\)",
        "{name} cannot be {got}; one of: {names}",
    ),
    (
        r"argument (?P<name>[^:]+): invalid (?P<kind>\w+) value: (?P<got>.*)",
        "{name} cannot be {got}: needed is {kind}",
    ),
)
"""argparse's sentences and ours, which can be translated."""
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "positive": "a whole number of at least 1",
    "unsigned": "a whole number, 0 or more",
}
"""Names of value kinds (functions of ``cli.kinds``) in words."""


class Help(argparse.RawDescriptionHelpFormatter):
    """Help in the language in force, wrapped by what the eye sees (Chinese letters are two columns wide)."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        """Begin with a translated word."""
        super().add_usage(usage, actions, groups, t("usage: ") if prefix is None else prefix)

    def _split_lines(self, text: str, width: int) -> list[str]:
        if text.isascii():
            return super()._split_lines(text, width)
        lines, used = [""], 0
        for letter in text:
            columns = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
            if used + columns > width:
                lines, used = [*lines, ""], 0
            lines[-1] += letter
            used += columns
        return lines


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are ConfigErrors with the nearest name."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError; a mistyped flag gets the nearest one as a hint."""
        wrong = next((word for word in message.split() if word.startswith("--")), None)
        known = [flag for action in self._actions for flag in action.option_strings]
        hint = did_you_mean(wrong, known) if wrong and "unrecognized" in message else None
        for pattern, ours in _COMPLAINTS:
            match = re.fullmatch(pattern, message)
            if match:
                facts = match.groupdict()
                if "kind" in facts:
                    facts["kind"] = t(_KINDS.get(facts["kind"], facts["kind"]))
                message = t(ours, **facts)
                break
        raise ConfigError(message, hint=hint or t("see: {command} --help", command=self.prog))


def ordered_commands() -> list[str]:
    """Command names in the order in which a user meets them; added ones come last."""
    names = COMMANDS.names()
    return [name for name in _ORDER if name in names] + [name for name in names if name not in _ORDER]


def _overview() -> str:
    lines = [
        t("bettersynth {version}: better image-text data, measured.", version=__version__),
        "",
        t("usage: bettersynth COMMAND [options]     (COMMAND --help for its options)"),
        "",
    ]
    lines += [f"  {name:<11} {t(COMMANDS.summary(name).rstrip('.'))}" for name in ordered_commands()]
    lines += [
        "",
        t("Start with: bettersynth demo --quick"),
        t("Options before or after any command: --lang zh|en, --version"),
    ]
    return "\n".join(lines)


def build_parser(name: str) -> Parser:
    """The parser of one command; imports that command's file only."""
    module = COMMANDS.module(name)
    parser = Parser(
        prog=f"bettersynth {name}",
        description=_description(module),
        epilog=_examples(module),
        formatter_class=Help,
        allow_abbrev=False,
        add_help=False,
    )
    module.add_arguments(parser)
    parser.add_argument("-h", "--help", action="help", help=t("show this help"))
    parser._positionals.title, parser._optionals.title = t("arguments"), t("options")
    parser.usage = _usage(parser)
    parser.add_argument("--lang", choices=("en", "zh"), help=argparse.SUPPRESS)
    return parser


def _description(module: Any) -> str:
    """The file's docstring, paragraph by paragraph in the language in force."""
    summary, *rest = [part.strip() for part in (module.__doc__ or "").split("\n\n")]
    return "\n\n".join([t(summary.rstrip(".")), *map(t, rest)])


def _usage(parser: Parser) -> str:
    """Arguments and needed flags in one line; the list of options follows below it anyway."""
    words = [f"%(prog)s {t('[options]')}"]
    for action in parser._actions:
        shown = str(action.metavar or "|".join(map(str, action.choices or ())) or action.dest)
        if action.option_strings and action.required:
            words.append(f"{action.option_strings[0]} {shown}")
        elif not action.option_strings:
            few = {"?": f"[{shown}]", "*": f"[{shown} …]", "+": f"{shown} …"}
            words.append(few.get(str(action.nargs), shown))
    return " ".join(words)


def _examples(module: Any) -> str | None:
    """The command's EXAMPLES, if it has any, as the end of its help."""
    examples = getattr(module, "EXAMPLES", ())
    return "\n".join([t("examples:"), *(f"  {line}" for line in examples)]) if examples else None


def _take_language(argv: list[str]) -> str | None:
    for index, word in enumerate(argv):
        if word.startswith("--lang="):
            return word.partition("=")[2]
        if word == "--lang" and index + 1 < len(argv):
            return argv[index + 1]
    return None


def _dispatch(words: list[str]) -> int:
    argv = words
    wanted = _take_language(argv)
    set_language(wanted)
    if wanted is not None and wanted not in LANGUAGES:
        raise ConfigError(t("unknown language"), where="--lang", got=wanted, expected=" | ".join(LANGUAGES))
    while argv and argv[0].startswith("--lang"):
        argv = argv[1:] if "=" in argv[0] else argv[2:]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"bettersynth {__version__}")
        return 0
    name = argv[0]
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS.names()) or t("see: {command} --help", command="bettersynth")
        raise ConfigError(t("unknown command '{name}'", name=name), hint=hint)
    module: Any = COMMANDS.module(name)
    rewrite = getattr(module, "rewrite", list)
    arguments = build_parser(name).parse_args(rewrite(argv[1:]))
    arguments.words = words
    return int(module.run(arguments) or 0)


def _internal_error(error: Exception) -> int:
    handle, path = tempfile.mkstemp(prefix="bettersynth-error-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        traceback.print_exc(file=stream)
    print(t("error: internal error: {kind}: {error}", kind=type(error).__name__, error=error), file=sys.stderr)
    print(t("hint: this is a defect of bettersynth; the full trace is in {path}", path=path), file=sys.stderr)
    return 1


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Inside, SIGTERM ends a command as Ctrl-C does: processes it started end, and it says how to go on.

    Whoever handles the signal already, and what is inside a training's loop, keep their own way.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (0 done, 1 failed, 2 wrong request, 130 interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guard(lambda: _dispatch(words), ["bettersynth", *words])


def guard(act: Callable[[], int], words: Sequence[str]) -> int:
    """Run a program; whatever goes wrong becomes one message and an exit code.

    Args:
        act: the program.
        words: how it was called, for who wants to continue it.
    """
    try:
        with sigterm_interrupts():
            return act()
    except PeerLost as error:
        if "BETTERSYNTH_LAUNCHED" not in os.environ:
            print(error.render(), file=sys.stderr)
        return error.exit_code
    except BetterSynthError as error:
        sys.stdout.flush()
        print(error.render(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(t("\ninterrupted; the same command continues: {command}", command=" ".join(words)), file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the outermost frame: a defect becomes one message and a trace file
        return _internal_error(error)


if __name__ == "__main__":
    sys.exit(main())
