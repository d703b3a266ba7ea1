"""Generate texts and pictures with a BAGEL model: text to image, editing, understanding, interleaved answers.

What decides whether a picture comes is written beside every answer: the caller (--output), the model's own marker, or
the words of the request. Running the same command again continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.kinds import positive
from bettersynth.cli.render import Progress, print_facts, print_json
from bettersynth.core.errors import ConfigError, MissingExtraError
from bettersynth.core.lang import t

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
    add(
        "-o", "--out", type=Path, default=Path("generated"), metavar="DIR", help=t("output folder (default: generated)")
    )
    add("--output", default="auto", help=t("auto, learned, rule, text, image, or an order such as text,image"))
    add("--think", action="store_true", help=t("let the model think first"))
    add("--size", metavar="WxH", help=t("size of new pictures in pixels"))
    add("--seed", type=int, default=0, help=t("seed of the first picture (default: 0)"))
    add("--count", type=positive, default=1, metavar="N", help=t("answers to each request, with seeds that count up"))
    add("--max-new-tokens", type=positive, default=512, metavar="N", help=t("longest text (default: 512)"))
    add("--temperature", type=float, default=0.0, metavar="T", help=t("of text; 0 takes the likeliest token (default)"))
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


def parse_size(size: str | None) -> tuple[int, int] | None:
    """``"1024x768"`` to (1024, 768), width first.

    Raises:
        ConfigError: it is something else.
    """
    if size is None:
        return None
    width, cross, height = size.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise ConfigError(t("unsupported value"), where="--size", got=size, expected=t("WIDTHxHEIGHT, e.g. 1024x768"))
    return int(width), int(height)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "output": args.output,
        "think": args.think,
        "image_size": parse_size(args.size),
        "seed": args.seed,
        "max_new_tokens": args.max_new_tokens,
        "temperature": args.temperature,
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
    try:
        from bettersynth.infer.unified import InterleaveInferencer, load_model
        from bettersynth.infer.unified_run import RESULTS, model_digest, run_jobs
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
    model = load_model(args.model, device=args.device, dtype=args.dtype, weights=args.weights, load_in=args.load_in)
    progress = Progress()
    artifact = run_jobs(
        InterleaveInferencer(model),
        jobs,
        args.out,
        digest=digest,
        batch_size=args.batch_size,
        progress=lambda done, total: progress(t("{done}/{total} answered", done=done, total=total)),
    )
    if args.json:
        print((args.out / RESULTS).read_text(encoding="utf-8"), end="")
        return 0
    _show(args.out / RESULTS, artifact)
    return 0


def _show(path: Path, artifact: Any) -> None:
    import json

    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        for output in line["outputs"]:
            what = path.parent / output["image"] if "image" in output else output["text"]
            print(f"{line['id']}  {output['kind']}  ({output['how']}: {output['reason']})  {what}")
    print()
    print_facts({"folder": str(artifact.folder), "pictures": artifact.facts["pictures"], "digest": artifact.digest})
