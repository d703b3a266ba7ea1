"""The demo's folder: a new one, an empty one, or one that the demo made before; nobody else's."""

from __future__ import annotations

from pathlib import Path

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.demo.world.build import HIDDEN_DIR

_SHOWN = 4


def check_place(root: Path, command: str) -> None:
    """Refuse a folder of somebody else: the world would be drawn among its files.

    Args:
        root: the demo's workspace.
        command: what was typed without the folder, for the hint.

    Raises:
        ConfigError: the place is a file, or a folder with files that is no demo workspace.
    """
    hint = f"{command} --out demo_out" if root.name != "demo_out" else f"{command} --out NEW_FOLDER"
    if root.is_dir():
        found = sorted(path.name for path in root.iterdir())
        if found and not (root / HIDDEN_DIR).is_dir():
            more = f", … (+{len(found) - _SHOWN})" if len(found) > _SHOWN else ""
            raise ConfigError(
                t("this folder is not empty and no workspace of the demo"),
                where=str(root),
                got=", ".join(found[:_SHOWN]) + more,
                expected=t("a new or empty folder"),
                hint=hint,
            )
    elif root.exists():
        raise ConfigError(t("this is a file, not a folder"), where=str(root), hint=hint)


def claim(root: Path) -> None:
    """Make the folder and mark it as the demo's, so that a demo killed at once continues there.

    Raises:
        DataError: it cannot be written.
    """
    try:
        (root / HIDDEN_DIR).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            t("cannot write the file"),
            where=str(root),
            got=error.strerror or str(error),
            hint=t("choose a writable output folder with free space"),
        ) from error
