"""Lance data sets, when the package ``pylance`` is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.core.errors import DataError, MissingExtraError
from bettersynth.core.lang import t
from bettersynth.formats.columns import Columns

_ROWS = 4096


def load_lance() -> Any:
    """The package.

    Raises:
        MissingExtraError: pylance is not installed.
    """
    try:
        import lance
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("reading and writing Lance"), "lance", missing="lance") from error
    return lance


def read_lance(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a Lance folder, a few thousand in memory at a time.

    Raises:
        MissingExtraError: pylance is not installed. DataError: not a Lance data set.
    """
    lance = load_lance()
    try:
        for batch in lance.dataset(str(path)).to_batches(batch_size=_ROWS):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=str(error).splitlines()[0]) from error


def write_lance(path: Path, columns: Columns) -> None:
    """Write rows as a new Lance data set in place of an old one.

    Raises:
        MissingExtraError: pylance is not installed. DataError: values that cannot share a column.
    """
    batches = (batch for table in columns.tables() for batch in table.to_batches())
    load_lance().write_dataset(batches, str(path), schema=columns.schema, mode="overwrite")
