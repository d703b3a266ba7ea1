"""Serve a BAGEL model on this machine: an OpenAI-compatible interface and a page to chat on, with pictures both ways.

It listens on 127.0.0.1 only unless told otherwise; any other address needs a key. Stop it with Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bettersynth.cli.kinds import positive
from bettersynth.core.errors import MissingExtraError
from bettersynth.core.lang import t
from bettersynth.models.bagel.files import check_folder

EXAMPLES = (
    "bettersynth serve --model models/BAGEL-7B-MoT",
    "bettersynth serve --model models/BAGEL-7B-MoT --port 9000 --batch-size 16",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``serve``."""
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help=t("folder of the model"))
    add("--weights", type=Path, metavar="FILE", help=t("another weight file, e.g. trained_model.pt"))
    add("--name", help=t("name that clients see (default: the folder's)"))
    add("--host", default="127.0.0.1", help=t("address to listen on (default: 127.0.0.1, this machine only)"))
    add("--port", type=int, default=8000, help=t("port; 0 takes a free one (default: 8000)"))
    add("--api-key", default="", help=t("key that clients must send (default: BETTERSYNTH_API_KEY)"))
    add("--batch-size", type=positive, default=8, help=t("requests answered together (default: 8)"))
    add("--load-in", choices=("nf4", "int8"), default="", help=t("keep the decoder's weights in 4 or 8 bits"))
    add("--device", default="auto", help=t("auto, cpu, cuda or cuda:N"))
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")


def run(args: argparse.Namespace) -> int:
    """Load the model and serve until interrupted."""
    check_folder(args.model, where="--model", weights=args.weights, has_tokenizer=True)
    try:
        from bettersynth.infer.server import Server, ServeSettings
        from bettersynth.infer.unified import InterleaveInferencer, load_model
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("generation"), "train", missing=error.name) from error
    settings = ServeSettings(
        model=args.name or args.model.resolve().name,
        host=args.host,
        port=args.port,
        api_key=args.api_key or os.environ.get("BETTERSYNTH_API_KEY", ""),
        batch_size=args.batch_size,
    )
    model = load_model(args.model, device=args.device, dtype=args.dtype, weights=args.weights, load_in=args.load_in)
    server = Server(settings, InterleaveInferencer(model), log=lambda line: print(line, file=sys.stderr, flush=True))
    print(t("serving {model} at {url} (OpenAI interface: {url}v1)", model=settings.model, url=server.url), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print(t("stopped"), file=sys.stderr)
    finally:
        server.server_close()
    return 0
