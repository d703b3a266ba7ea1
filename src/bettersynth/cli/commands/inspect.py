"""Look at single samples: what a recipe did to a row, or which tokens training learns from.

bettersynth inspect DATASET ID            the row's passport: each operator's scores, before and after
bettersynth inspect --mask DATA --model M  the text as the model sees it; learnt tokens are coloured
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.render import print_facts, print_json, print_rows, printable
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean

EXAMPLES = (
    "bettersynth inspect output/processed_data 000000012",
    "bettersynth inspect --mask output/processed_data/llava_format.json --model toolkit/training/model_zoo",
)
_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``inspect``."""
    add = parser.add_argument
    add("what", nargs="*", metavar="DATASET ID", help=t("processed folder and row ids; with --mask only ids"))
    add("--mask", type=Path, metavar="DATA.json", help=t("show the loss mask of training data"))
    add("--model", type=Path, metavar="DIR", help=t("checkpoint or model zoo whose tokenizer is used"))
    add("--images", type=Path, metavar="DIR", help=t("where picture paths start (default: beside the file)"))
    add("--max-length", type=int, metavar="N", help=t("longest sequence in tokens (default: 2048; BAGEL: 10240)"))
    add("--first", type=int, default=_SHOWN, metavar="N", help=t("samples shown when no id is given (default: 3)"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Show passports or masks."""
    if args.mask is not None:
        return _masks(args)
    if not args.what:
        raise ConfigError(
            t("give a processed folder, or --mask DATA.json"),
            hint=t("see: {command} --help", command="bettersynth inspect"),
        )
    folder, ids = Path(args.what[0]), args.what[1:]
    return _passports(args, folder, ids) if ids else _overview(args, folder)


# ---------------------------------------------------------------- passports


def _overview(args: argparse.Namespace, folder: Path) -> int:
    """What happened to how many rows, with a few ids of each kind to look at."""
    from bettersynth.engine.passport import labels_of
    from bettersynth.engine.trace import load

    events, labels = load(folder), labels_of(folder)
    groups: dict[tuple[str, str, str], list[str]] = {}
    for event in events:
        label = labels.get(event["step"], event["operator"])
        groups.setdefault((label, event["action"], event["reason"]), []).append(event["id"])
    rows = [
        (operator or "-", action, reason, len(ids), ids[:_SHOWN]) for (operator, action, reason), ids in groups.items()
    ]
    if args.json:
        keys = ("operator", "action", "reason", "rows", "examples")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        shown = [(name, t(action), why, count, ", ".join(ids)) for name, action, why, count, ids in rows]
        print_rows((t("operator"), t("what"), t("reason"), t("rows"), t("examples")), shown, "<<<>")
    return 0


def _passports(args: argparse.Namespace, folder: Path, ids: list[str]) -> int:
    from bettersynth.engine.passport import passport

    passports = {row_id: passport(folder, row_id) for row_id in ids}
    for row_id, events in passports.items():
        if not events:
            raise DataError(t("no row of that id"), where=str(folder), got=row_id, hint=_nearest(folder, row_id))
    if args.json:
        print_json(passports)
        return 0
    for row_id, events in passports.items():
        for key in dict.fromkeys(event["key"] for event in events):
            mine = [event for event in events if event["key"] == key]
            print(f"{printable(row_id)}  {next((e['image'] for e in mine if e['image']), '')}".rstrip())
            for event in mine:
                _print_event(event)
            print()
    return 0


def _nearest(folder: Path, row_id: str) -> str:
    from bettersynth.engine.trace import load

    known = {event["id"] for event in load(folder)}
    return did_you_mean(row_id, known) or t("list some with: bettersynth inspect {folder}", folder=folder)


def _print_event(event: dict[str, Any]) -> None:
    step = event["label"] or t("result")
    reason = f": {event['reason']}" if event["reason"] else ""
    print(f"  {step}  {t(event['action'])}{reason}")
    scores = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in event["scores"].items()}
    limits = [f"{name}={value}" for name, value in event.get("limits", {}).items() if value is not None]
    if scores:
        shown = "  ".join(f"{name}={value}" for name, value in scores.items())
        print(f"    {shown}" + (f"  ({', '.join(limits)})" if limits else ""))
    for label, text in ((t("before"), event["before"]), (t("after"), event["after"])):
        if text is not None:
            print(f"    {label}: {text!r}")


# ---------------------------------------------------------------- loss masks


def _masks(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from bettersynth.core.errors import MissingExtraError
    from bettersynth.formats.llava import read_llava, to_conversation

    if args.model is None:
        raise ConfigError(t("{flag} needs {other}", flag="--mask", other="--model DIR"))
    if args.max_length is not None and args.max_length < 1:
        raise ConfigError(t("not a length"), where="--max-length", got=args.max_length)
    if (args.model / "llm_config.json").is_file():
        return _unified_masks(args)
    args.max_length = args.max_length or 2048
    reading = read_llava(args.mask)
    records = _chosen(args, reading.records)
    try:
        from bettersynth.train.inspect import loss_mask

        processor = _processor(args)
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("showing loss masks"), "train", missing=error.name) from error
    masks = [loss_mask(to_conversation(record), processor) for record in records]
    if args.json:
        print_json([asdict(mask) for mask in masks])
        return 0
    _show_masks(masks, len(reading.records))
    if reading.rejected:
        first = reading.rejected[0]
        print(
            t(
                "{n} records are unusable; first: record {row}: {reason}",
                n=len(reading.rejected),
                row=first.row + 1,
                reason=first.reason,
            )
        )
    return 0


def _unified_masks(args: argparse.Namespace) -> int:
    """Records of joint training, as a BAGEL folder's sizes and tokenizer make them."""
    from dataclasses import asdict

    from bettersynth.core.errors import MissingExtraError

    try:
        from bettersynth.models.bagel.tokens import BagelTokenizer
        from bettersynth.train.inspect import unified_mask
        from bettersynth.train.unified_dataset import UnifiedGenerationDataset
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("showing loss masks"), "train", missing=error.name) from error
    length = args.max_length or 10240
    data = UnifiedGenerationDataset(
        args.mask, args.model, image_root=args.images, max_sequence_length=length, max_bad_ratio=1.0
    )
    tokenizer = BagelTokenizer(args.model)
    keys = [{"id": example.key, "row": row} for row, example in enumerate(data)]
    masks = [unified_mask(data[item["row"]], tokenizer) for item in _chosen(args, keys)]
    if args.json:
        print_json([asdict(mask) for mask in masks])
        return 0
    _show_masks(masks, len(data))
    for row in data.rejected:
        print(t("record {row} ({key}): {detail}", row=row.row, key=row.key or "-", detail=row.detail))
    return 0


def _show_masks(masks: list[Any], total: int) -> None:
    from bettersynth.report.terminal import use_colour
    from bettersynth.train.inspect import render_mask

    for mask in masks:
        print(render_mask(mask, is_coloured=use_colour()))
        print()
    counts = {
        t("shown"): f"{len(masks)} / {total}",
        t("tokens"): sum(mask.num_tokens for mask in masks),
        t("image tokens"): sum(mask.num_image_tokens for mask in masks),
        t("learnt"): sum(mask.num_targets for mask in masks),
    }
    print_facts(counts)


def _chosen(args: argparse.Namespace, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not args.what:
        return records[: args.first]
    wanted = [record for record in records if str(record.get("id", "")) in args.what]
    missing = [name for name in args.what if name not in {str(record.get("id", "")) for record in wanted}]
    if missing:
        hint = did_you_mean(missing[0], [str(record.get("id", "")) for record in records])
        raise DataError(t("no row of that id"), where=str(args.mask), got=", ".join(missing), hint=hint)
    return wanted


def _processor(args: argparse.Namespace) -> Any:
    """The processor of a checkpoint, or of the bases in a model zoo; no weights are read for the latter."""
    from bettersynth.models.family import BaseFolders, load_family
    from bettersynth.models.mgm.config import TRUNK_STRIDE, clip_vision_fields, config_from_bases
    from bettersynth.models.mgm.processor import build_processor
    from bettersynth.train.zoo import zoo_folder

    if not args.model.is_dir():
        raise DataError(t("no such folder"), where=str(args.model))
    places = {"max_length": args.max_length, "image_root": args.images or args.mask.parent, "image_aspect_ratio": "pad"}
    if (args.model / "config.json").is_file():
        return load_family("mgm").processor(args.model, **places)
    parts = {part: zoo_folder(args.model, part) for part in ("llm", "vision_tower", "vision_tower_aux")}
    vision = clip_vision_fields(parts["vision_tower"])
    # Any size that the towers accept will do: a mask depends on the number of image tokens alone.
    side = TRUNK_STRIDE * (vision["image_size"] // vision["patch_size"])
    spec = BaseFolders(**parts, image_size_aux=side, model_max_length=args.max_length, image_aspect_ratio="pad")
    return build_processor(config_from_bases(spec, [1], [1]), parts["llm"], **places)
