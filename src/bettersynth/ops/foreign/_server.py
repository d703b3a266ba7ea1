"""The other side of the pipe: run by a Python that has Data-Juicer, never imported by ours.

It reads frames from standard input and answers on standard output; whatever libraries print goes to the log. A frame
is a length (8 bytes, little-endian) and JSON, then a length and an Arrow IPC stream (empty when there are no rows).
Rows travel as JSON text in an Arrow column, because a record may hold any fields. One bad row fails alone: on an error
the batch is halved until the row stands by itself.

Source: what is called is the public surface of py-data-juicer 1.6.1 (its registry of operators and their methods).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import pickle
import random
import signal
import sys
import time
from typing import Any, BinaryIO

import pyarrow as pa

STATS, META, BATCH_META = "__dj__stats__", "__dj__meta__", "__dj__batch_meta__"
PLACE = "__place__"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
Row = dict[str, Any]
Answer = dict[str, Any]


class Stop(Exception):
    """Nothing can be computed at all: an unknown operator, or one that cannot be made."""


# --- the pipe -------------------------------------------------------------------------------------------------------


def read_frame(stream: BinaryIO) -> tuple[dict[str, Any], Any] | None:
    """Header and table (or None) of the next frame; None at the end."""
    header = _read_part(stream)
    if header is None:
        return None
    body = _read_part(stream)
    table = pa.ipc.open_stream(body).read_all() if body else None
    return json.loads(header), table


def write_frame(stream: BinaryIO, header: dict[str, Any], table: Any = None) -> None:
    """Send a frame."""
    body = b""
    if table is not None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        body = sink.getvalue().to_pybytes()
    for part in (json.dumps(header).encode(), body):
        stream.write(len(part).to_bytes(8, "little"))
        stream.write(part)
    stream.flush()


def _read_part(stream: BinaryIO) -> bytes | None:
    size = stream.read(8)
    if len(size) < 8:
        return None
    return stream.read(int.from_bytes(size, "little"))


# --- operators ------------------------------------------------------------------------------------------------------

_operators: dict[str, Any] = {}


def catalogue() -> Any:
    """The file beside this one that knows what operators there are; scripts find their neighbours by plain name."""
    return importlib.import_module("_server_catalogue")


def operator(name: str, params: dict[str, Any]) -> Any:
    """The operator, made once per set of parameters; errors are left to us instead of being skipped."""
    key = json.dumps([name, params], sort_keys=True)
    if key not in _operators:
        classes = catalogue().registry()
        if name not in classes:
            raise Stop(f"this Data-Juicer has no operator {name}")
        try:
            _operators[key] = classes[name](**params, skip_op_error=False)
        except Exception as error:
            raise Stop(describe(error)) from error
        except SystemExit as error:
            raise Stop(f"it ended the process with {error.code}") from error
    return _operators[key]


def describe(error: BaseException) -> str:
    """An error as one line, with its place where that is in the user's own files."""
    text = f"{type(error).__name__}: {error}".split("\n", 1)[0][:500]
    place = catalogue().place_of(error)
    return f"{text} ({place})" if place else text


def columns_of(rows: list[Row]) -> dict[str, list[Any]]:
    """Rows as columns; a field that a row lacks is None there."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def rows_of(columns: dict[str, Any]) -> list[Row]:
    """Columns as rows.

    Raises:
        ValueError: columns of different lengths.
    """
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def seed_all(seed: int) -> None:
    """Make the generators that operators draw from independent of what ran before."""
    random.seed(seed)
    numpy = importlib.import_module("numpy")
    numpy.random.seed(seed % 2**32)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


def each(work: Any, rows: list[Row], seeds: list[int]) -> list[Answer]:
    """``work(rows)`` gives answers; on an error halve the rows, down to the one that fails."""
    seed_all(seeds[0])
    try:
        found: list[Answer] = work([pickle.loads(pickle.dumps(row)) for row in rows])  # noqa: S301 - a copy of our own
        return found
    except (KeyboardInterrupt, MemoryError):
        raise
    except ImportError as error:
        raise Stop(describe(error)) from error  # no row is at fault
    except BaseException as error:  # noqa: BLE001 - some libraries leave through SystemExit
        if len(rows) == 1:
            return [{"source": rows[0][PLACE], "error": describe(error)}]
        middle = len(rows) // 2
        return each(work, rows[:middle], seeds[:middle]) + each(work, rows[middle:], seeds[middle:])


def filtered(op: Any, rows: list[Row]) -> list[Answer]:
    """Stats and decision of each row."""
    before = [set(row[STATS]) for row in rows]
    if op.is_batched_op():
        columns = op.compute_stats_batched({**columns_of(rows)})
        kept = [bool(value) for value in op.process_batched(columns)]
        stats = list(columns[STATS])
    else:
        scored = [op.compute_stats_single(row) for row in rows]
        kept = [bool(op.process_single(row)) for row in scored]
        stats = [row[STATS] for row in scored]
    if len(kept) != len(rows) or len(stats) != len(rows):
        raise ValueError("the operator did not decide on every row")
    return [
        {"source": row[PLACE], "kept": stays, "stats": {key: stat[key] for key in stat if key not in old}}
        for row, stays, stat, old in zip(rows, kept, stats, before, strict=True)
    ]


def mapped(op: Any, rows: list[Row]) -> list[Answer]:
    """The rows made from each row; a hidden column, which operators copy like any other, tells from which."""
    if not op.is_batched_op():
        return [{"source": row[PLACE], "row": op.process_single(row)} for row in rows]
    places = [row[PLACE] for row in rows]
    out = op.process_batched(columns_of(rows))
    lengths = {len(values) for values in out.values()}
    if len(lengths) == 1 and (PLACE in out or len(rows) == 1):
        made = rows_of(out)
        found = [row.get(PLACE, places[0]) for row in made]
        if set(found) <= set(places):
            return [{"source": place, "row": row} for place, row in zip(found, made, strict=True)]
    if len(rows) == 1:
        if lengths == {0}:
            return []
        raise ValueError(f"columns of different lengths: { ({name: len(values) for name, values in out.items()}) }")
    # Its rows do not say where they come from: one at a time they cannot help it.
    raise ValueError("rows of unknown origin")


def hashed(op: Any, rows: list[Row]) -> list[Answer]:
    """What a deduplicator computes per row: the new fields, kept as bytes for the decision over all rows."""
    answers = []
    for row in rows:
        known = set(row)
        out = op.compute_hash(row)
        answers.append({"source": row[PLACE], "blob": {key: out[key] for key in out if key not in known}})
    return answers


# --- decisions over all rows ----------------------------------------------------------------------------------------


def dataset(rows: list[Row]) -> Any:
    """Rows as Data-Juicer's data set class."""
    plain = importlib.import_module("datasets").Dataset.from_list(rows)
    return importlib.import_module("data_juicer.core.data").NestedDataset(plain)


def decide(op: Any, kind: str, rows: list[Row]) -> dict[str, Any]:
    """Places of the rows that stay, or the groups, or what each group comes to."""
    for place, row in enumerate(rows):
        row[PLACE] = place
    if kind == "deduplicator":
        kept, _ = op.process(dataset(rows))
        return {"places": list(kept[PLACE])}
    if kind == "selector":
        return {"places": list(op.process(dataset(rows))[PLACE])}
    if kind == "grouper":
        return {"groups": [list(group[PLACE]) for group in op.process(dataset(rows))]}
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.pop("__group__"), []).append(row)
    found = []
    for group in groups.values():
        sample = {**columns_of(group), BATCH_META: {}}
        found.append({"places": sample[PLACE], "meta": op.process_single(sample)[BATCH_META]})
    return {"aggregated": json.loads(dump(found))}


# --- requests -------------------------------------------------------------------------------------------------------


def dump(value: Any) -> str:
    """JSON text; arrays and numbers of libraries become plain, sets become sorted lists."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    for way in ("tolist", "isoformat"):
        if hasattr(value, way):
            return getattr(value, way)()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a value that is no JSON: {type(value).__name__}")


def answer(header: dict[str, Any], table: Any) -> tuple[dict[str, Any], Any]:
    """Do one request."""
    if header["do"] == "facts":
        return {"facts": catalogue().facts()}, None
    loaded = [catalogue().load(path) for path in header.get("custom", {}).get("paths", ())]
    if header["do"] == "declare":
        return loaded[-1], None
    for found in loaded:
        if "error" in found:
            raise Stop("{error} ({place})".format(**found))
    set_tokens(header.get("tokens") or {})
    op = operator(header["operator"], header["params"])
    if header["do"] == "make":
        return {}, None
    if header["do"] == "decide":
        rows = [pickle.loads(blob) for blob in table.column("blob").to_pylist()]  # noqa: S301 - written by this file
        return decide(op, header["kind"], rows), None
    rows = [json.loads(text) for text in table.column("row").to_pylist()]
    for place, row in enumerate(rows):
        row[PLACE] = place
    if header["do"] == "rows":  # for a later decision: no work yet, only the form
        blobs = [pickle.dumps({key: row[key] for key in row if key != PLACE}) for row in rows]
        return {}, pa.table({"source": list(range(len(rows))), "blob": pa.array(blobs, pa.binary())})
    work = {"filter": filtered, "mapper": mapped, "deduplicator": hashed}[header["kind"]]
    answers = each(lambda part: work(op, part), rows, table.column("seed").to_pylist()) if rows else []
    return {}, as_table(answers)


def as_table(answers: list[Answer]) -> Any:
    """Answers as columns; a value that no JSON can hold is that row's error."""
    lines = []
    for found in answers:
        line = {"source": found["source"], "error": found.get("error")}
        try:
            if "row" in found:
                row = {key: value for key, value in found["row"].items() if key != PLACE}
                line["row"] = dump(row)
            if "stats" in found:
                line |= {"kept": found["kept"], "stats": dump(found["stats"])}
            if "blob" in found:
                line["blob"] = pickle.dumps(found["blob"])
        except (TypeError, ValueError, AttributeError) as error:
            line = {"source": found["source"], "error": describe(error)}
        lines.append(line)
    kinds = {"source": pa.int64(), "error": pa.string(), "row": pa.string(), "kept": pa.bool_(), "stats": pa.string()}
    columns = {name: pa.array([line.get(name) for line in lines], kind) for name, kind in kinds.items()}
    return pa.table({**columns, "blob": pa.array([line.get("blob") for line in lines], pa.binary())})


def set_tokens(tokens: dict[str, str]) -> None:
    """Special tokens are process-wide in Data-Juicer."""
    if tokens:
        special = importlib.import_module("data_juicer.utils.mm_utils").SpecialTokens
        for name, value in tokens.items():
            setattr(special, name, value)


def main() -> None:
    """Answer until the pipe closes; die with the parent."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    told = 0.0
    while True:
        frame = read_frame(requests)
        if frame is None:
            os._exit(0)  # libraries may hold threads that delay a normal exit
        try:
            header, table = answer(*frame)
        except Stop as error:
            header, table = {"stop": str(error)}, None
        except Exception as error:  # noqa: BLE001 - the caller decides what it means
            header, table = {"failed": describe(error)}, None
        cpu_s = time.process_time()
        write_frame(answers, {**header, "cpu_s": cpu_s - told}, table)
        told = cpu_s


if __name__ == "__main__":
    main()
