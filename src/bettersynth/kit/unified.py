"""The folder of the unified generation guide: its script, its import names, its data format, its explanation."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from bettersynth.core.artifact import write_atomic
from bettersynth.formats.unified_schema import sample_data_format, schema_text
from bettersynth.kit.build import KitReport, walk_templates
from bettersynth.train.unified_flags import FLAGS

TRACK = "unified"


def unified_files() -> dict[str, str]:
    """Path to text of every file."""
    root = resources.files("bettersynth.kit").joinpath("template_unified")
    files = {name: item.read_text(encoding="utf-8") for name, item in walk_templates(root)}
    files["README_training.md"] = files["README_training.md"].replace("@FLAGS@", _flag_rows())
    files["training/README_training.md"] = files["README_training.md"]
    files["training/sample_data_format.json"] = sample_data_format()
    files["training/unified_record.schema.json"] = schema_text()
    return files


def _flag_rows() -> str:
    rows = []
    for flag in FLAGS:
        value = "" if flag.kind == "switch" else f" {flag.kind.replace('|', '/').upper()}"
        default = "" if flag.default in (None, False) else f"`{flag.default}`"
        rows.append(f"| `--{flag.name}{value}` | {default} | {flag.help} |")
    return "\n".join(rows)


def init_unified(folder: Path) -> KitReport:
    """Write the folder; what is there stays.

    Raises:
        DataError: it cannot be written.
    """
    written, kept = [], []
    for name, text in sorted(unified_files().items()):
        path = folder / name
        if path.exists() or path.is_symlink():
            kept.append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
        if path.name == "train_unified_generation.py":
            os.chmod(path, 0o755)
        written.append(name)
    return KitReport(folder, TRACK, tuple(written), tuple(kept))
