"""Check this machine: Python, packages, devices, threads, disk.

Each package is imported in a process of its own, so a broken one is a line in the table and not a crash.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

from bettersynth.cli.render import print_json, print_rows
from bettersynth.core.lang import t

_PACKAGES = {
    "numpy": "core", "pyarrow": "core", "pydantic": "core", "PIL": "core", "scipy": "core", "ftfy": "core",
    "selectolax": "core", "openpyxl": "core", "torch": "train", "transformers": "train", "safetensors": "train",
    "tensorboard": "tracking", "wandb": "wandb",
}  # fmt: skip
_DISTRIBUTIONS = {"PIL": "pillow"}
_PROBE_TIMEOUT_S = 60
_ESSENTIAL = ("core",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``doctor``."""
    parser.add_argument("--json", action="store_true", help=t("print JSON"))


def _probe(module: str) -> tuple[str, str]:
    command = [sys.executable, "-c", f"import {module}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return "broken", t("import takes more than {n} s", n=_PROBE_TIMEOUT_S)
    if done.returncode == 0:
        return "ok", metadata.version(_DISTRIBUTIONS.get(module, module))
    last = (done.stderr.strip().splitlines() or ["?"])[-1]
    return ("absent" if "ModuleNotFoundError" in last else "broken"), last[:100]


def _device() -> tuple[str, str]:
    code = "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'CPU only')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    return ("ok", done.stdout.strip()) if done.returncode == 0 else ("absent", t("torch is not installed"))


def _threads() -> tuple[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS")
    if asked and asked.isdigit() and int(asked) > cores:
        return "broken", t(
            "OMP_NUM_THREADS={asked} but there are {cores} cores: set it to {cores}", asked=asked, cores=cores
        )
    return "ok", t("{cores} cores, OMP_NUM_THREADS={asked}", cores=cores, asked=asked or t("not set"))


def run(args: argparse.Namespace) -> int:
    """Print the table; exit 1 when something the core needs is absent or broken."""
    weights = resources.files("bettersynth").joinpath("demo", "weights")
    bases = sorted(item.name for item in weights.iterdir() if item.is_dir()) if weights.is_dir() else []
    rows = [("python", "core", *(("ok" if sys.version_info >= (3, 11) else "broken"), platform.python_version()))]
    rows += [(name, extra, *_probe(name)) for name, extra in _PACKAGES.items()]
    rows.append(("device", "train", *_device()))
    rows.append(("threads", "core", *_threads()))
    rows.append(("free disk", "core", "ok", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB"))
    rows.append(("demo weights", "core", "ok" if bases else "broken", ", ".join(bases)))
    if args.json:
        print_json([dict(zip(("what", "part", "state", "detail"), row, strict=True)) for row in rows])
    else:
        print_rows((t("what"), t("part"), t("state"), t("detail")), rows)
    return 1 if any(state != "ok" and part in _ESSENTIAL for _, part, state, _ in rows) else 0
