"""Hugging Face ``datasets`` folders (Arrow streams saved by ``save_to_disk``) and single Arrow files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from bettersynth.core.artifact import write_atomic
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.formats.columns import Columns

_STATE, _INFO, _DICT = "state.json", "dataset_info.json", "dataset_dict.json"


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``save_to_disk`` made this folder."""
    return (folder / _STATE).is_file() or (folder / _DICT).is_file()


def saved_files(folder: Path, split: str | None = None) -> list[Path]:
    """The Arrow files of a saved data set in order; of several splits the one asked for, else ``train``, else all.

    Raises:
        ConfigError: there is no such split. DataError: the folder's own description cannot be read.
    """
    try:
        if (folder / _DICT).is_file():
            splits = list(json.loads((folder / _DICT).read_text(encoding="utf-8"))["splits"])
            if split is not None and split not in splits:
                raise ConfigError(t("no such split"), where=str(folder), got=split, expected=", ".join(splits))
            chosen = [split or "train"] if split or "train" in splits else splits
            return [path for name in chosen for path in saved_files(folder / name)]
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        return [folder / entry["filename"] for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(t("cannot read the data file"), where=str(folder), got=str(error)) from error


def read_arrow(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of an Arrow file, in the stream form of ``datasets`` or in the file form.

    Raises:
        DataError: the file is missing or is not Arrow.
    """
    try:
        with pa.OSFile(str(path)) as handle:
            magic = handle.read(6)
            handle.seek(0)
            if magic == b"ARROW1":
                with pa.ipc.open_file(handle) as reader:
                    for number in range(reader.num_record_batches):
                        yield from reader.get_batch(number).to_pylist()
            else:
                with pa.ipc.open_stream(handle) as reader:
                    for batch in reader:
                        yield from batch.to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(t("cannot read the data file"), where=str(path), got=str(error).splitlines()[0]) from error


def write_saved_dataset(folder: Path, columns: Columns) -> None:
    """Write a folder that ``datasets.load_from_disk`` reads.

    Raises:
        DataError: values that cannot share a column.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = "data-00000-of-00001.arrow"
    with (folder / name).open("wb") as handle, pa.ipc.new_stream(handle, columns.schema) as writer:
        for table in columns.tables():
            writer.write_table(table)
    state = {
        **dict.fromkeys(("_fingerprint", "_format_columns", "_format_type", "_split")),
        "_data_files": [{"filename": name}],
        "_fingerprint": "bettersynth",
        "_format_kwargs": {},
        "_output_all_columns": False,
    }
    write_atomic(folder / _STATE, json.dumps(state, indent=1, sort_keys=True).encode())
    write_atomic(folder / _INFO, json.dumps({"citation": "", "description": ""}, indent=1).encode())
