"""Generate texts and pictures with a BAGEL model: text to image, editing, understanding, interleaved answers.

What decides whether a picture comes is written beside every answer: the caller (--output), the model's own marker, or
the words of the request. Running the same command again continues.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bettersynth.cli.kinds import positive
from bettersynth.cli.render import Progress, print_facts, print_json
from bettersynth.core.errors import ConfigError, DataError, MissingExtraError
from bettersynth.core.lang import t
from bettersynth.models.bagel.files import check_folder

EXAMPLES = (
    'bettersynth generate --model models/BAGEL-7B-MoT "draw a red fox in the snow" --seed 7',
    'bettersynth generate --model models/BAGEL-7B-MoT --image room.png "paint the wall blue"',
    'bettersynth generate --model models/BAGEL-7B-MoT --image room.png "how many chairs are there?"',
    "bettersynth generate --model models/BAGEL-7B-MoT --prompts prompts.jsonl --batch-size 16 --out pictures",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``generate``."""
    add = parser.add_argument
    add("prompt", nargs="*", metavar="TEXT", help=t("a request each; they are answered in batches"))
    add("--model", type=Path, required=True, metavar="DIR", help=t("folder of the model"))
    add("--weights", type=Path, metavar="FILE", help=t("another weight file, e.g. trained_model.pt"))
    add("--image", type=Path, action="append", default=[], metavar="FILE", help=t("picture before every request"))
    add("--prompts", type=Path, metavar="JSONL", help=t("requests in a file: id, prompt or segments, and options"))
    add("-o", "--out", type=Path, metavar="DIR", help=t("output folder (default: generated, then generated-2 …)"))
    add("--output", default="auto", help=t("auto, learned, rule, text, image, or an order such as text,image"))
    add("--think", action="store_true", help=t("let the model think first"))
    add("--size", metavar="WxH", help=t("size of new pictures in pixels"))
    add("--seed", type=int, default=0, help=t("seed of the first picture (default: 0)"))
    add("--count", type=positive, default=1, metavar="N", help=t("answers to each request, with seeds that count up"))
    add("--max-new-tokens", type=positive, default=512, metavar="N", help=t("longest text (default: 512)"))
    add("--temperature", type=float, default=0.0, metavar="T", help=t("of text; 0 takes the likeliest token (default)"))
    add("--top-p", type=float, metavar="P", help=t("draw from the likeliest tokens that have this chance together"))
    add("--stop", action="append", metavar="TEXT", help=t("end a text before this; may be given several times"))
    add("--steps", type=positive, help=t("points in time of a drawing (default: 50)"))
    add("--shift", type=float, help=t("shift of the time towards noise (default: 3)"))
    add("--cfg-text", type=float, help=t("guidance by the text (default: 4)"))
    add("--cfg-img", type=float, help=t("guidance by input pictures (default: 1.5, editing 2)"))
    add("--cfg-interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help=t("shifted times at which guidance acts"))
    add("--renorm", help=t("global, channel or text_channel"))
    add("--renorm-min", type=float, metavar="FACTOR", help=t("smallest factor of the renorm; 1 switches it off"))
    add("--taylorseer", action="store_true", help=t("predict most steps from earlier ones"))
    add("--batch-size", type=positive, default=8, metavar="N", help=t("requests answered together (default: 8)"))
    add("--load-in", choices=("nf4", "int8"), default="", help=t("keep the decoder's weights in 4 or 8 bits"))
    add("--device", default="auto", help=t("auto, cpu, cuda or cuda:N"))
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    add("--plan", action="store_true", help=t("say what would be generated; load no model"))
    add("--json", action="store_true", help=t("print JSON"))


def _options(args: argparse.Namespace) -> dict[str, Any]:
    from bettersynth.infer.unified_options import parse_size

    if args.top_p is not None and not args.temperature:
        raise ConfigError(t("{flag} needs {other}", flag="--top-p", other="--temperature T"))
    return {
        "output": args.output,
        "think": args.think,
        "image_size": None if args.size is None else parse_size(args.size, "--size"),
        "seed": args.seed,
        "max_new_tokens": args.max_new_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "stop": args.stop,
        "num_timesteps": args.steps,
        "timestep_shift": args.shift,
        "cfg_text_scale": args.cfg_text,
        "cfg_img_scale": args.cfg_img,
        "cfg_interval": args.cfg_interval,
        "cfg_renorm_type": args.renorm,
        "cfg_renorm_min": args.renorm_min,
        "taylorseer": args.taylorseer or None,
    }


def _jobs(args: argparse.Namespace) -> list[Any]:
    from dataclasses import replace

    from bettersynth.infer.unified_run import Job, read_jobs
    from bettersynth.infer.unified_types import request_of

    options = _options(args)
    for picture in args.image:
        if not picture.is_file():
            raise DataError(t("image not found"), where="--image", got=picture)
    if "" in args.prompt and not args.image:
        raise ConfigError(
            t("nothing was asked for"), where="TEXT", got='""', expected=t("a text, --image or --prompts")
        )
    jobs = read_jobs(args.prompts, options) if args.prompts else []
    first = len(jobs) + 1
    jobs += [Job(f"{n:05d}", request_of([*args.image, text], options)) for n, text in enumerate(args.prompt, first)]
    if not jobs and args.image:
        jobs = [Job("00001", request_of(list(args.image), options))]
    if not jobs:
        raise ConfigError(t("nothing was asked for"), expected=t("a text, --image or --prompts"))
    if args.count == 1:
        return jobs
    return [
        Job(f"{job.id}-{extra}", replace(job.request, seed=job.request.seed + extra))
        for job in jobs
        for extra in range(args.count)
    ]


def run(args: argparse.Namespace) -> int:
    """Generate and say where the answers lie."""
    check_folder(args.model, where="--model", weights=args.weights, has_tokenizer=True)
    try:
        from bettersynth.infer.unified import InterleaveInferencer, load_model
        from bettersynth.infer.unified_run import RESULTS, free_folder, model_digest, other_answers, run_jobs
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("generation"), "train", missing=error.name) from error
    jobs = _jobs(args)
    if args.plan:
        print_json(
            [
                {"id": j.id, "seed": j.request.seed, "output": j.request.output, "parts": len(j.request.parts)}
                for j in jobs
            ]
        )
        return 0
    digest = model_digest(args.model, weights=args.weights, dtype=f"{args.dtype} {args.load_in}".strip())
    out = args.out or free_folder(Path("generated"), jobs, digest)
    others = other_answers(out, jobs, digest)
    if others:
        note = t("{folder}: replaces {n} answers to other requests, or of another model", folder=out, n=len(others))
        print(note, file=sys.stderr)
    model = load_model(args.model, device=args.device, dtype=args.dtype, weights=args.weights, load_in=args.load_in)
    progress = Progress()
    artifact = run_jobs(
        InterleaveInferencer(model),
        jobs,
        out,
        digest=digest,
        batch_size=args.batch_size,
        progress=lambda done, total: progress(t("{done}/{total} answered", done=done, total=total)),
    )
    if args.json:
        print((out / RESULTS).read_text(encoding="utf-8"), end="")
        return 0
    _show(out / RESULTS, artifact)
    return 0


def _show(path: Path, artifact: Any) -> None:
    import json

    from bettersynth.formats.jsonl import text_lines

    for line in map(json.loads, text_lines(path)):
        for output in line["outputs"]:
            what = path.parent / output["image"] if "image" in output else output["text"]
            print(f"{line['id']}  {output['kind']}  ({output['how']}: {output['reason']})  {what}")
    print()
    print_facts({"folder": str(artifact.folder), "pictures": artifact.facts["pictures"], "digest": artifact.digest})
