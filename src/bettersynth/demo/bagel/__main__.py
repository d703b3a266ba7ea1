"""Make what the tiny BAGEL's training needs: records with pictures, and the folder it starts from.

    python -m bettersynth.demo.bagel bagel_demo --train 4000 --val 200
    bettersynth train --preset bagel_demo --data bagel_demo/train.jsonl --val-data bagel_demo/val.jsonl \\
        --init-from bagel_demo/start
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bettersynth.core.errors import BetterSynthError
from bettersynth.demo.bagel.data import write_records
from bettersynth.demo.bagel.start import write_start


def main(words: list[str] | None = None) -> int:
    """Read the command line and write; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bettersynth.demo.bagel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--train", type=int, default=4000, help="training records")
    parser.add_argument("--val", type=int, default=200, help="validation records")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    arguments = parser.parse_args(words)
    try:
        facts = {
            name: write_records(arguments.folder, count=count, seed=arguments.seed, name=name)
            for name, count in (("train", arguments.train), ("val", arguments.val))
        }
        write_start(arguments.folder / "start", seed=arguments.seed)
    except BetterSynthError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
