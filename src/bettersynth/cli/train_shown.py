"""Plans and results of training as tables, lines or JSON."""

from __future__ import annotations

import argparse
import os
from typing import Any

from bettersynth.cli.render import print_facts, print_json
from bettersynth.core.lang import t


def shown(artifact: Any) -> dict[str, Any]:
    """The facts of a finished stage that are worth a line."""
    keys = (
        "rows",
        "rows_trained",
        "rows_rejected",
        "rows_sampled_out",
        "steps",
        "samples_seen",
        "mean_loss",
        "last_loss",
    )
    shown = {key: artifact.facts[key] for key in keys if key in artifact.facts}
    return {**shown, "wall_s": artifact.run.get("wall_s"), "cpu_s": artifact.run.get("cpu_s")}


def num_devices(args: argparse.Namespace) -> int:
    """How many share the work: as said, or as torchrun says."""
    return args.devices or int(os.environ.get("WORLD_SIZE") or args.processes or 1)


def show_plans(args: argparse.Namespace, plans: list[Any]) -> int:
    """Print plans as tables, or as JSON."""
    from dataclasses import asdict

    from bettersynth.cli.render import print_rows

    if args.json:
        print_json([asdict(plan) for plan in plans])
        return 0
    for plan in plans:
        facts = asdict(plan)
        parts, cards = facts.pop("memory_bytes"), facts.pop("cards")
        sizes = {key: facts.pop(f"{key}_bytes") for key in ("peak", "host", "disk")}
        print_facts(facts)
        print()
        rows = [(t("device: {part}", part=part), _size(size)) for part, size in parts.items()]
        rows += [(t("device, all at the peak"), _size(sizes["peak"])), (t("host memory"), _size(sizes["host"]))]
        print_rows((t("memory and disk"), t("size")), [*rows, (t("disk"), _size(sizes["disk"]))], align="<>")
        print()
        rows = [
            (card["name"], card["memory_gb"], t("yes") if card["fits"] else t("no"), card["hours"]) for card in cards
        ]
        print_rows((t("card"), "GB", t("fits"), t("hours, assumed")), rows, align="<><>")
        print()
    return 0


def _size(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
