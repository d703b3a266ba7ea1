"""Run one benchmark, or all four: ``python -m benchmarks.bagel [train|draw|decode|load] [--size N]``.

``train``: tokens per CPU second of joint training. ``draw``: steps of text-to-image with both guidances. ``decode``:
tokens of greedy text. ``load``: host memory while weights are read. Both sides take turns in one process (``load``: one
process each), in one thread; CPU seconds of the process, the least of several rounds. Each on two models with random
weights: ``tiny`` (the golden set's sizes) and ``mid`` (31 M).

``gpu`` measures on one card what a CPU cannot say, ``weights`` what the weights of the two losses do: see
``python -m benchmarks.bagel gpu --help``, ``weights --help``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import machine

RESULTS = Path(__file__).parents[1] / "results"
NAMES = ("train", "draw", "decode", "load")
MODELS = ("tiny", "mid")
SIZES = {
    "train": {"tiny": 64, "mid": 16},
    "draw": {"tiny": 40, "mid": 6},
    "decode": {"tiny": 64, "mid": 24},
    "load": {"tiny": 0, "mid": 48},
}
"""Records, steps, new tokens, decoder layers (210 M parameters)."""


def measure(name: str, model: str, size: int, folder: Path) -> dict[str, Any]:
    """The facts of one benchmark on one model."""
    if name == "train":
        from benchmarks.bagel.train import training

        return training(model, folder, size)
    if name == "load":
        from benchmarks.bagel.load import loading

        return loading(folder / "load", size)
    from benchmarks.bagel.infer import decoding, drawing

    return (drawing if name == "draw" else decoding)(model, size)


def main(words: Sequence[str] | None = None) -> int:
    """Run, print, keep."""
    given_words = list(sys.argv[1:] if words is None else words)
    if given_words[:1] == ["weights"]:
        from benchmarks.bagel.weights import main as weights_main

        return weights_main(given_words[1:])
    if given_words[:1] == ["gpu"]:
        from benchmarks.bagel.gpu import main as gpu_main

        return gpu_main(given_words[1:])
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bagel", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--size", type=int, metavar="N", help="records, steps, tokens or layers instead of the usual")
    parser.add_argument("--model", choices=MODELS, help="one model (default: both)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where JSON goes")
    args = parser.parse_args(given_words)
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(NAMES)}, gpu, weights")
    torch.set_num_threads(1)
    for name in args.names or NAMES:
        facts: dict[str, Any] = {"benchmark": f"bagel-{name}", "machine": machine(), "torch": torch.__version__}
        for model in [args.model] if args.model else MODELS:
            size = args.size or SIZES[name][model]
            if size:
                with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                    facts[model] = measure(name, model, size, Path(folder))
        text = json.dumps(facts, indent=1)
        print(text)
        args.results.mkdir(parents=True, exist_ok=True)
        (args.results / f"bagel-{name}.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
