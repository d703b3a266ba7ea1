"""Make a full checkpoint of a LoRA adapter and the weights it was trained on.

A stage trained with lora: {merge: false} leaves an adapter alone; adapters made by PEFT are taken too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bettersynth.cli.render import print_facts, print_json
from bettersynth.core.lang import t

EXAMPLES = (
    "bettersynth merge --adapter output/training_dirs/MGM-2B-Finetune-mine --model-zoo model_zoo --output merged",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``merge``."""
    add = parser.add_argument
    add("--adapter", type=Path, required=True, metavar="DIR", help=t("folder with adapter_config.json"))
    add("--model-zoo", type=Path, metavar="DIR", help=t("the bases it was trained on"))
    add("--init-from", type=Path, metavar="DIR", help=t("the full checkpoint it was trained on, instead"))
    add("--output", type=Path, required=True, metavar="DIR", help=t("folder of the full checkpoint"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Merge, or say why not."""
    from bettersynth.train.merge import merge_adapter

    artifact = merge_adapter(args.adapter, args.output, model_zoo=args.model_zoo, init_from=args.init_from)
    facts = {"folder": str(artifact.folder), "digest": artifact.digest}
    print_json(facts) if args.json else print_facts(facts)
    return 0
