"""Talk with a checkpoint about a picture, in the terminal or on a small local page.

Without --ask it reads one question a line. A line that begins with / is a command: /image FILE, /new, /quit. A new
picture begins a new conversation.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bettersynth.cli.render import print_json
from bettersynth.core.errors import BetterSynthError, ConfigError, DataError, MissingExtraError
from bettersynth.core.lang import t

EXAMPLES = (
    "bettersynth chat output/training_dirs/MGM-2B-Finetune-mine --image picture.jpg",
    'bettersynth chat mine --image picture.jpg --ask "What is this?"',
    "bettersynth chat mine --web",
)
PORT = 7860
_COMMANDS = "/image FILE, /new, /quit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``chat``."""
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help=t("full checkpoint folder"))
    add("--image", type=Path, metavar="FILE", help=t("picture to talk about"))
    add("--ask", action="append", default=[], metavar="TEXT", help=t("ask this and end; several are one conversation"))
    add("--max-new-tokens", type=int, default=256, metavar="N", help=t("longest answer in tokens (default: 256)"))
    add("--temperature", type=float, default=0.0, metavar="T", help=t("above 0: sample (default: 0, the likeliest)"))
    add("--top-p", type=float, metavar="P", help=t("draw from the likeliest tokens that have this chance together"))
    add("--stop", action="append", default=[], metavar="TEXT", help=t("end an answer before this; may be repeated"))
    add("--seed", type=int, default=0, metavar="N", help=t("of sampling (default: 0)"))
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    add("--device", default="auto", help=t("auto, cpu, cuda or cuda:N"))
    add("--model-zoo", type=Path, metavar="DIR", help=t("where the towers lie when the checkpoint lacks them"))
    add("--web", action="store_true", help=t("serve a page on this machine instead (extra: web)"))
    add("--port", type=int, default=PORT, metavar="N", help=t("of the page (default: 7860)"))
    add("--json", action="store_true", help=t("with --ask: print JSON"))


def run(args: argparse.Namespace) -> int:
    """Load the checkpoint, then ask, talk or serve."""
    options = _checked(args)
    try:
        from bettersynth.infer.conversation import Conversation

        if args.web:  # a missing extra is said before gigabytes are loaded
            import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        extra = "web" if error.name == "gradio" else "train"
        raise MissingExtraError(t("talking with a checkpoint"), extra, missing=error.name) from error
    try:
        talker = Conversation(args.checkpoint, dtype=args.dtype, device=args.device, model_zoo=args.model_zoo)
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("talking with a checkpoint"), "train", missing=error.name) from error
    if args.web:
        from bettersynth.cli.chat_page import build_page, serve

        page = build_page(talker, args.checkpoint.resolve().name, options)
        print(t("the page: {address} (Ctrl-C ends it)", address=f"http://127.0.0.1:{args.port}"), file=sys.stderr)
        serve(page, args.port)
        return 0
    if args.ask:
        return _ask(args, talker, options)
    return _talk(args, talker, options)


def _checked(args: argparse.Namespace) -> dict[str, Any]:
    if not (args.checkpoint / "config.json").is_file():
        is_bagel = (args.checkpoint / "llm_config.json").is_file()
        raise DataError(
            t("no checkpoint here"),
            where=str(args.checkpoint),
            expected=t("a folder with {name}", name="config.json"),
            hint=t("this is a BAGEL folder: use bettersynth generate, serve and metrics") if is_bagel else None,
        )
    if args.image is not None and not args.image.is_file():
        raise DataError(t("image not found"), where=str(args.image))
    if args.max_new_tokens < 1 or args.temperature < 0:
        raise ConfigError(t("unsupported value"), got=f"{args.max_new_tokens}, {args.temperature}", expected="≥ 1, ≥ 0")
    if args.top_p is not None and not 0 < args.top_p <= 1:
        raise ConfigError(t("unsupported value"), where="--top-p", got=args.top_p, expected="0 < P ≤ 1")
    if args.top_p is not None and not args.temperature:
        raise ConfigError(t("{flag} needs {other}", flag="--top-p", other="--temperature T"))
    if "" in args.stop:
        raise ConfigError(t("unsupported value"), where="--stop", got='""')
    if args.json and not args.ask:
        raise ConfigError(t("{flag} needs {other}", flag="--json", other="--ask TEXT"))
    options = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "seed": args.seed}
    return {**options, "top_p": args.top_p or 1.0, "stop": args.stop}


def _ask(args: argparse.Namespace, talker: Any, options: dict[str, Any]) -> int:
    turns: list[tuple[str, str]] = []
    for question in args.ask:
        turns.append(("user", question))
        turns.append(("assistant", talker.answer(turns, args.image, **options) or "…"))
        if not args.json:
            print(turns[-1][1])
    if args.json:
        print_json({"image": str(args.image) if args.image else None, "turns": [list(turn) for turn in turns]})
    return 0


def _talk(args: argparse.Namespace, talker: Any, options: dict[str, Any]) -> int:
    """One question a line until the end of input. A refused question is said and forgotten."""
    is_terminal = sys.stdin.isatty()
    image, turns = args.image, []
    if is_terminal:
        print(t("{image}; commands: {commands}", image=image or t("no picture"), commands=_COMMANDS), file=sys.stderr)
    while True:
        if is_terminal:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line or line.strip() == "/quit":
            return 0
        text = line.strip()
        if not text:
            continue
        if text.startswith("/"):
            image, turns = _command(text, image, turns)
            continue
        try:
            said = talker.answer([*turns, ("user", text)], image, say=_say, **options)
        except BetterSynthError as error:
            print(error.render(), file=sys.stderr)
            continue
        print(flush=True)
        turns += [("user", text), ("assistant", said or "…")]


def _say(piece: str) -> None:
    print(piece, end="", flush=True)


def _command(text: str, image: Path | None, turns: list[tuple[str, str]]) -> tuple[Path | None, list[tuple[str, str]]]:
    word, _, rest = text.partition(" ")
    if word == "/new":
        return image, []
    if word == "/image" and Path(rest.strip()).is_file():
        return Path(rest.strip()), []
    problem = t("image not found") if word == "/image" else t("no such command")
    print(f"{problem}: {text} ({_COMMANDS})", file=sys.stderr)
    return image, turns
