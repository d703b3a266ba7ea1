"""Ask a checkpoint a benchmark's questions and score the answers.

Answered questions are kept: running the same command again continues. Every answer carries the digests of checkpoint,
prompt, decoding and questions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.kinds import positive
from bettersynth.cli.render import Progress, print_json, print_rows, print_scores
from bettersynth.core.lang import t


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``eval``."""
    add = parser.add_argument
    add(
        "tasks",
        nargs="+",
        metavar="TASK",
        help=t("textvqa, mmbench, pope, gqa, scienceqa, mmmu, or one protocol: textvqa-noocr, …"),
    )
    add("--checkpoint", type=Path, metavar="DIR", help=t("checkpoint folder"))
    add("--name", metavar="NAME", help=t("take OUT/training_dirs/NAME (as the kit's scripts do)"))
    add(
        "--data",
        type=Path,
        default=Path("toolkit/eval"),
        metavar="DIR",
        help=t("evaluation folder (default: toolkit/eval)"),
    )
    add("--split", default="", help=t("question file's stem, e.g. mmbench_dev_20230712"))
    add("--out", type=Path, default=Path("output"), metavar="DIR", help=t("output folder (default: output)"))
    add("--model-zoo", type=Path, metavar="DIR", help=t("where the towers lie when the checkpoint lacks them"))
    add("--batch-size", type=positive, default=16)
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    add("--device", default="auto", help=t("auto, cpu, cuda or cuda:N"))
    add("--gpus", default="", help=t("the kit's GPU list; one process serves them, the first is used"))
    add("--limit", type=positive, help=t("only the first so many questions (marked in the result)"))
    add("--max-new-tokens", type=positive, help=t("longest answer in tokens (default: the task's)"))
    add("--plan", action="store_true", help=t("count questions and batches; ask nothing"))
    add("--json", action="store_true", help=t("print JSON"))


def _device(args: argparse.Namespace) -> str:
    import torch

    from bettersynth.infer._torch import choose_device

    wanted = args.device
    if wanted == "auto" and args.gpus and torch.cuda.is_available():
        wanted = f"cuda:{args.gpus.split(',')[0]}"
    return str(choose_device(wanted)[0])


def _checkpoint(args: argparse.Namespace) -> tuple[Path, str]:
    from bettersynth.core.errors import ConfigError, DataError

    if (args.checkpoint is None) == (args.name is None):
        raise ConfigError(t("give either --checkpoint or --name"))
    folder = args.checkpoint or args.out / "training_dirs" / args.name
    if not (folder / "config.json").is_file():
        there = sorted(path.parent.name for path in folder.parent.glob("*/config.json"))
        raise DataError(
            t("no checkpoint here"),
            where=str(folder),
            got=", ".join(there) or t("none"),
            expected=t("a folder with {name}", name="config.json"),
            hint=t("this is a BAGEL folder: use bettersynth generate, serve and metrics")
            if (folder / "llm_config.json").is_file()
            else t("train one with: bettersynth train, or bettersynth run train_only"),
        )
    _refuse_projector(folder)
    return folder, folder.resolve().name


def _refuse_projector(folder: Path) -> None:
    """Refuse stage 1's folder, which holds a projector and no model; name the command that goes on from it.

    Raises:
        ConfigError: it is one.
    """
    from bettersynth.core.errors import ConfigError

    has_projector = any(folder.glob("mm_projector.*"))
    if not has_projector or any(folder.glob("*model*.safetensors")) or any(folder.glob("pytorch_model*")):
        return
    name = folder.resolve().name.removeprefix("MGM-2B-Pretrain-")
    second = folder.resolve().parent / f"MGM-2B-Finetune-{name}"
    there = (second / "config.json").is_file()
    raise ConfigError(
        t("this folder holds only what stage 1 trained, not a full checkpoint"),
        where=str(folder),
        expected=t("the folder of stage 2"),
        hint=f"--checkpoint {folder.parent / second.name}"
        if there
        else f"bettersynth train --stage 2 --name {name} --preset … --finetune-data … --model-zoo …",
    )


_INNER_SPLITS = ("gqa", "mmmu", "pope", "scienceqa")
"""Benchmarks whose splits are no files of their own name; they say themselves which they have."""


def _suffixes(task: str) -> tuple[str, ...]:
    return (".tsv",) if task == "mmbench" else (".jsonl", ".json", ".parquet")


def _data(args: argparse.Namespace, task: str) -> Path:
    if not args.split:
        return Path(args.data)
    folder = Path(args.data) / task
    found = [path for suffix in _suffixes(task) if (path := folder / f"{args.split}{suffix}").is_file()]
    # Benchmarks whose files hold several splits take the split's name where a file would stand.
    return found[0] if found else folder / args.split


def _check_split(args: argparse.Namespace, task: str) -> None:
    """Refuse a folder or split that is not there.

    Raises:
        DataError: with the splits that are there.
    """
    from bettersynth.core.errors import DataError

    folder = Path(args.data) / task
    if not args.split or _data(args, task).exists() or task in _INNER_SPLITS or not folder.is_dir():
        return
    suffixes = _suffixes(task)
    there = sorted(path.stem for path in folder.iterdir() if path.suffix in suffixes)
    raise DataError(
        t("no such split"),
        where=str(folder),
        got=args.split,
        expected=", ".join(there) or t("none"),
        hint=t("leave out --split to take the usual one"),
    )


def _plan(args: argparse.Namespace, pairs: list[tuple[str, str]]) -> int:
    """Questions and batches of every protocol; asks nothing."""
    from bettersynth.eval.runner import ask, open_target, plan_batches

    plans = []
    for task, protocol in pairs:
        _check_split(args, task)
        asked = ask(open_target(protocol, _data(args, task)), args.limit)
        plans.append((protocol, len(asked.questions), len(plan_batches(asked, args.batch_size))))
    if args.json:
        print_json([dict(zip(("protocol", "questions", "batches"), plan, strict=True)) for plan in plans])
    else:
        print_rows((t("protocol"), t("questions"), t("batches")), plans, "<>>")
    return 0


def run(args: argparse.Namespace) -> int:
    """Generate, then score, every task asked for."""
    from bettersynth.core.errors import MissingExtraError
    from bettersynth.eval.protocol import resolve
    from bettersynth.eval.runner import generate
    from bettersynth.eval.score import load_results, score

    pairs = resolve(args.tasks)
    if args.plan:
        return _plan(args, pairs)
    folder, name = _checkpoint(args)  # what is wrong with the words is said before seconds of loading
    for task in dict.fromkeys(task for task, _ in pairs):
        _check_split(args, task)
    try:
        from bettersynth.infer.checkpoint import CheckpointChatModel

        device = _device(args)
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("evaluation"), "train", missing=error.name) from error
    progress = Progress()
    model = CheckpointChatModel(
        folder, batch_size=args.batch_size, dtype=args.dtype, device=device, model_zoo=args.model_zoo
    )
    results = []
    for task, protocol in pairs:
        module_data = _data(args, task)
        predictions = generate(
            protocol,
            model,
            module_data,
            args.out / "eval_results" / name / protocol,
            decoding=_decoding(args, task),
            batch_size=args.batch_size,
            limit=args.limit,
            progress=lambda done, total, shown=protocol: progress(f"{shown}: {done}/{total}"),
        )
        results += load_results(score(predictions.folder, module_data).folder)
    print_scores({name: results}, as_json=args.json)
    return 0


def _decoding(args: argparse.Namespace, task: str) -> Any:
    from bettersynth.infer.protocols import Decoding

    return Decoding(max_new_tokens=args.max_new_tokens) if args.max_new_tokens else None
