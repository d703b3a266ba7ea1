"""Convert between the Data-Juicer and LLaVA forms and plain pairs, or sample a data set down as the kit does.

pairs-to-dj   image-text pairs, {"image": …, "text" or "caption": …} a line, to rows
dj-to-llava   rows to records for training; questions come back by id with --original, else captions get one
llava-to-dj   records to rows, as recipes read them
llava-to-t2i  captioned pictures to text-to-image records of joint training: the caption asks for the picture
sample        at most --max rows, drawn with seed 1024; what is left out is counted and announced

bagel-groups  the original BAGEL trainer's data YAML (--input, --paths) to records and a mixture in a folder (--output)
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from bettersynth.cli.render import print_json
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t

EXAMPLES = (
    "bettersynth convert pairs-to-dj --input pairs.jsonl --output rows.jsonl",
    "bettersynth convert dj-to-llava --input rows.jsonl --output train.json --original stage_1.json",
    "bettersynth convert llava-to-dj --input stage_1.json --output rows.jsonl --only-caption",
    "bettersynth convert sample --input rows.jsonl --output sampled.jsonl --max 200000",
)
KINDS = ("pairs-to-dj", "dj-to-llava", "llava-to-dj", "llava-to-t2i", "sample", "bagel-groups")
KIT_SEED = 1024
_LISTED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``convert``."""
    add = parser.add_argument
    add("what", choices=KINDS, metavar="|".join(KINDS), help=t("the conversion"))
    add("--input", type=Path, required=True, metavar="FILE", help=t("file to read; it is not changed"))
    add("--output", type=Path, required=True, metavar="FILE", help=t("file to write"))
    add(
        "--original",
        "--questions",
        type=Path,
        metavar="JSON",
        help=t("original LLaVA file: restore its questions by id"),
    )
    add("--no-restore-questions", action="store_true", help=t("take the turns that stand in the rows"))
    add("--only-caption", action="store_true", help=t("llava-to-dj: keep the answers only"))
    add("--image-token", metavar="TOKEN", help=t("spelling of the image token in rows (default: <__dj__image>)"))
    add("--paths", type=Path, metavar="YAML", help=t("bagel-groups: where each data set lies"))
    add("--max", type=int, metavar="N", help=t("sample: most rows to keep; 0: all"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Convert everything, or nothing with the reason."""
    from bettersynth.formats.read import nearest_file

    for place in (args.input, args.original):
        if place is not None and not place.is_file():
            raise DataError(t("no such file or folder"), where=str(place), hint=nearest_file(place))
    made = {"pairs-to-dj": _from_pairs, "dj-to-llava": _to_llava, "llava-to-dj": _to_dj, "sample": _sample}
    made |= {"llava-to-t2i": _to_drawing, "bagel-groups": _from_bagel_groups}
    facts = made[args.what](args)
    if args.json:
        print_json({"output": str(args.output), **facts})
        return 0
    if facts.get("rejected"):
        print(t("{n} unusable, each with its reason in {name}", n=facts["unusable"], name=facts["rejected"]))
    elif facts["rows_out"] < facts["rows_in"]:
        print(
            t(
                "{rows} rows sampled down to {kept} (seed {seed}); {left} left out",
                rows=facts["rows_in"],
                kept=facts["rows_out"],
                seed=KIT_SEED,
                left=facts["rows_in"] - facts["rows_out"],
            )
        )
    if facts.get("questions_drawn"):
        print(t("{n} rows had no question: one of the kit's caption requests each", n=facts["questions_drawn"]))
    print(t("{rows} rows in {path}", rows=facts["rows_out"], path=args.output))
    return 0


def _rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a file.

    Raises:
        DataError: unreadable, or lines that are no rows; the first of them are listed.
    """
    from bettersynth.formats.jsonl import BadLine, read_rows

    rows, bad = [], []
    for _, row in read_rows(path):
        (bad if isinstance(row, BadLine) else rows).append(row)
    if bad:
        _refuse(path, [f"{t('line {n}', n=item.line)}: {item.reason}" for item in bad])
    return rows


def _refuse(path: Path, problems: list[str]) -> None:
    shown = "; ".join(problems[:_LISTED])
    raise DataError(
        t("{n} rows cannot be read, so nothing was written", n=len(problems)),
        where=str(path),
        got=shown + ("; …" if len(problems) > _LISTED else ""),
        hint=t("mend or remove them; bettersynth process sets such rows aside and keeps the others"),
    )


def _tokens(args: argparse.Namespace) -> Any:
    from bettersynth.formats.data_juicer import DEFAULT_TOKENS, Tokens

    return Tokens((args.image_token, *DEFAULT_TOKENS.images)) if args.image_token else DEFAULT_TOKENS


def _from_pairs(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.experiment.pairs import pair_rows
    from bettersynth.formats.jsonl import write_rows

    rows, rejected = pair_rows(args.input, args.image_token or _tokens(args).images[0])
    write_rows(args.output, rows)
    facts = {"rows_in": len(rows) + len(rejected), "rows_out": len(rows), "unusable": len(rejected)}
    if not rejected:
        return facts
    place = args.output.with_name(f"{args.output.stem}.rejected.jsonl")
    write_rows(place, rejected)
    return {**facts, "rejected": str(place)}


def _to_llava(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.formats.data_juicer import field_problem
    from bettersynth.formats.llava import CAPTION_REQUESTS, brings_turns, dj_to_llava, questions_by_id, write_llava

    rows = _rows(args.input)
    if not rows:
        raise DataError(t("there is no row to convert"), where=str(args.input))
    found = [(number, field_problem(row, text_key="text", image_key="images")) for number, row in enumerate(rows, 1)]
    problems = [f"{t('row {n}', n=number)}: {problem}" for number, problem in found if problem]
    if problems:
        _refuse(args.input, problems)
    is_restored = args.original is not None and not args.no_restore_questions
    questions = questions_by_id(args.original) if is_restored else None
    requests = () if args.original is not None or _is_locked(args.input) else CAPTION_REQUESTS
    records = dj_to_llava(
        rows, questions=questions, restore_questions=is_restored, requests=requests, tokens=_tokens(args)
    )
    write_llava(args.output, records)
    drawn = sum(not brings_turns(row["text"]) for row in rows) if requests else 0
    facts = {"rows_in": len(rows), "rows_out": len(records), "questions_restored": is_restored}
    return {**facts, "questions_drawn": drawn}


def _is_locked(rows: Path) -> bool:
    """Whether rows belong to a challenge, whose conversion may only restore questions: by their recipe or their kit."""
    from bettersynth.cli.kit import track_of
    from bettersynth.core.artifact import Artifact

    folder = rows.resolve().parent
    if Artifact.exists(folder) and Artifact.load(folder).facts.get("track") == "challenge":
        return True
    tracks = (track_of(place) for place in (folder, *folder.parents))
    return next((track for track in tracks if track), "open") != "open"


def _to_dj(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.formats.jsonl import write_rows
    from bettersynth.formats.llava import llava_to_dj, read_llava

    reading = read_llava(args.input)
    if reading.rejected:
        _refuse(args.input, [f"{t('record {n}', n=bad.row + 1)}: {bad.reason}" for bad in reading.rejected])
    token = args.image_token or _tokens(args).images[0]
    rows = list(llava_to_dj(reading.records, only_keep_caption=args.only_caption, image_token=token))
    write_rows(args.output, rows)
    return {"rows_in": len(reading.records), "rows_out": len(rows)}


def _to_drawing(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.formats.jsonl import write_rows
    from bettersynth.formats.llava import read_llava
    from bettersynth.formats.unified import drawing_records

    reading = read_llava(args.input)
    pairs, bad = drawing_records(reading.records)
    problems = [f"{t('record {n}', n=one.row + 1)}: {one.reason}" for one in (*reading.rejected, *bad)]
    if problems:
        _refuse(args.input, problems)
    write_rows(args.output, pairs)
    return {"rows_in": len(reading.records), "rows_out": len(pairs)}


def _from_bagel_groups(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.train.bagel_groups import MIXTURE_FILE, REJECTED_FILE, import_groups

    if args.paths is None:
        raise ConfigError(t("needed: {names}", names="--paths"), hint=t("bagel-groups: where each data set lies"))
    found = import_groups(args.input, args.paths, args.output)
    rows, records = sum(found.rows.values()), sum(found.records.values())
    facts: dict[str, Any] = {"rows_in": rows, "rows_out": records, "unusable": len(found.rejected)}
    facts |= {"datasets": found.records, "mixture": str(args.output / MIXTURE_FILE)}
    return {**facts, "rejected": str(args.output / REJECTED_FILE)} if found.rejected else facts


def _sample(args: argparse.Namespace) -> dict[str, Any]:
    """Draw as the challenge kit's sample check does (seed 1024, ``random.sample``); lines stay as they are."""
    from bettersynth.core.artifact import write_atomic

    if args.max is None or args.max < 0:
        raise ConfigError(t("sample needs --max N"), where="--max", got=args.max, expected=t("0 or more"))
    _rows(args.input)  # refuses damaged lines before anything is written
    lines = [line for line in args.input.read_bytes().splitlines() if line.strip()]
    kept = lines
    if args.max and len(lines) > args.max:
        kept = [lines[index] for index in random.Random(KIT_SEED).sample(range(len(lines)), args.max)]
    write_atomic(args.output, b"".join(line + b"\n" for line in kept))
    return {"rows_in": len(lines), "rows_out": len(kept), "seed": KIT_SEED}
