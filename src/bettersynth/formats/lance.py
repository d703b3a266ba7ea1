"""Lance data sets, when the package ``pylance`` is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from bettersynth.core.errors import DataError, MissingExtraError
from bettersynth.core.lang import t

_ROWS = 4096


def _lance() -> Any:
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
    lance = _lance()
    try:
        for batch in lance.dataset(str(path)).to_batches(batch_size=_ROWS):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=str(error).splitlines()[0]) from error


def write_lance(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as a new Lance data set in place of an old one; returns their number."""
    lance = _lance()
    iterator = iter(rows)
    first = pa.Table.from_pylist(list(islice(iterator, _ROWS)))
    count = first.num_rows

    def batches() -> Iterator[Any]:
        nonlocal count
        yield from first.to_batches()
        while more := list(islice(iterator, _ROWS)):
            count += len(more)
            yield from pa.Table.from_pylist(more, schema=first.schema).to_batches()

    lance.write_dataset(batches(), str(path), schema=first.schema, mode="overwrite")
    return count
