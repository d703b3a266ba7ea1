"""Export a checkpoint for transformers, convert it to and from public layouts, share it on a model hub.

export      a folder of its own: towers inside, safetensors, tokenizer, model card, file for transformers
to-mgm      the original MGM trainer's layout; from-mgm makes its checkpoints self-contained
projector   what stage 1 trains, as one file: for MGM, or the projector alone for LLaVA (--form llava)
join        base models and a projector file (ours, MGM's or LLaVA's) become a full checkpoint
push, pull  to and from a hub repository; nothing is ever sent or fetched without these
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.render import print_facts, print_json
from bettersynth.core.errors import ConfigError, DataError, MissingExtraError
from bettersynth.core.lang import t

EXAMPLES = (
    "bettersynth checkpoint export --input output/training_dirs/MGM-2B-Finetune-mine --output mine --dtype bfloat16",
    "bettersynth checkpoint projector --input mine --output mm_projector.bin --form llava",
    "bettersynth checkpoint join --input mm_projector.bin --model-zoo toolkit/training/model_zoo --output joined",
    "bettersynth checkpoint push --input mine --repo me/mine",
)
KINDS = ("export", "to-mgm", "from-mgm", "projector", "join", "push", "pull")
_NEEDS_INPUT = ("export", "to-mgm", "from-mgm", "projector", "join", "push")
_NEEDS_OUTPUT = ("export", "to-mgm", "from-mgm", "projector", "join", "pull")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``checkpoint``."""
    add = parser.add_argument
    add("what", choices=KINDS, metavar="|".join(KINDS), help=t("what to do"))
    add(
        "--input", type=Path, metavar="PATH", help=t("checkpoint folder; stage 1's folder or a projector file for join")
    )
    add("--output", type=Path, metavar="PATH", help=t("folder to write; a .bin or .safetensors file for projector"))
    add("--dtype", default="auto", metavar="NAME", help=t("float32, bfloat16 or float16 (default: as stored)"))
    add("--model-zoo", type=Path, metavar="DIR", help=t("base models: towers that a checkpoint lacks, bases to join"))
    add("--scores", type=Path, action="append", default=[], metavar="DIR", help=t("scores for the model card"))
    add("--no-code", action="store_true", help=t("export without the file for transformers' remote code"))
    add("--form", choices=("mgm", "llava"), default="mgm", help=t("projector and miner, or the projector alone"))
    add("--with-towers", action="store_true", help=t("put the frozen towers into the projector file, as MGM does"))
    add("--image-size-aux", type=int, default=768, metavar="PX", help=t("join: side of the picture (default: 768)"))
    add("--repo", metavar="OWNER/NAME", help=t("hub repository for push and pull"))
    add("--revision", metavar="NAME", help=t("pull: branch, tag or commit"))
    add("--public", action="store_true", help=t("push: make a new repository public (default: private)"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Do one of them and say what was written."""
    _check(args)
    made = {"export": _export, "to-mgm": _original, "from-mgm": _original, "projector": _projector}
    made |= {"join": _join, "push": _push, "pull": _pull}
    try:
        facts = made[args.what](args)
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("checkpoints"), "train", missing=error.name) from error
    print_json(facts) if args.json else print_facts({t(name): value for name, value in facts.items()})
    return 0


def _check(args: argparse.Namespace) -> None:
    """Say all that is missing at once."""
    needed = {"--input": args.what in _NEEDS_INPUT, "--output": args.what in _NEEDS_OUTPUT}
    needed |= {"--repo": args.what in ("push", "pull"), "--model-zoo": args.what == "join"}
    missing = [
        flag for flag, is_needed in needed.items() if is_needed and not getattr(args, flag[2:].replace("-", "_"))
    ]
    if missing:
        raise ConfigError(
            t("needed: {names}", names=", ".join(missing)),
            hint=t("see: {command} --help", command="bettersynth checkpoint"),
        )
    if args.input is not None and not args.input.exists():
        raise DataError(t("no such file or folder"), where=str(args.input))


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.experiment.publish import CARD, export_checkpoint

    facts = export_checkpoint(
        args.input,
        args.output,
        dtype=args.dtype,
        model_zoo=args.model_zoo,
        scores=args.scores,
        has_code=not args.no_code,
    )
    return {**_shown(facts, args.output), "model card": str(args.output / CARD)}


def _original(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.models.mgm.exchange import write_original, write_standalone

    if args.what == "to-mgm":
        return _shown(write_original(args.input, args.output, dtype=args.dtype, model_zoo=args.model_zoo), args.output)
    written = write_standalone(
        args.input, args.output, dtype=args.dtype, model_zoo=args.model_zoo, has_code=not args.no_code
    )
    return _shown(written, args.output)


def _shown(facts: dict[str, Any], out: Path) -> dict[str, Any]:
    return {
        "folder": str(out),
        "parameters": f"{facts['parameters']:,}",
        "precision": facts["dtype"],
        "weights": f"{facts['bytes'] / 2**20:,.1f} MiB",
    }


def _projector(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.models.mgm.exchange import write_projector

    names = write_projector(args.input, args.output, form=args.form, has_towers=args.with_towers)
    return {"file": str(args.output), "tensors": len(names), "first": names[0], "last": names[-1]}


def _join(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.models.family import BaseFolders
    from bettersynth.models.mgm.exchange import join
    from bettersynth.train.zoo import zoo_folder

    parts = {part: zoo_folder(args.model_zoo, part) for part in ("llm", "vision_tower", "vision_tower_aux")}
    bases = BaseFolders(**parts, image_size_aux=args.image_size_aux, image_aspect_ratio="pad")
    fresh = join(args.input, bases, args.output, dtype="float32" if args.dtype == "auto" else args.dtype)
    return {"folder": str(args.output), "untrained parts": ", ".join(fresh) or t("none")}


def _push(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.experiment.publish import push

    return {"repository": push(args.input, args.repo, is_public=args.public)}


def _pull(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.experiment.publish import pull

    return {"folder": str(pull(args.repo, args.output, revision=args.revision))}
