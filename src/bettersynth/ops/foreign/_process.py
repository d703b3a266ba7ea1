"""Our side of the pipe: starts a Python that has Data-Juicer and asks it for batches."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from bettersynth.core.errors import BetterSynthError, DataError, MissingExtraError
from bettersynth.core.fingerprint import digest_file, digest_json
from bettersynth.core.lang import t

PYTHON_VARIABLE = "BETTERSYNTH_DATA_JUICER_PYTHON"
TIMEOUT_VARIABLE = "BETTERSYNTH_DATA_JUICER_TIMEOUT_S"
_TIMEOUT_S = 600.0
_MAX_DEATHS = 12
# Data-Juicer installs what it misses while it runs; a data engine must not change environments behind the user's back.
_NO_INSTALLS = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


class Died(Exception):
    """The process ended, or did not answer in time."""


def find_python(given: str | None) -> str:
    """The Python that has Data-Juicer: the operator's own key, the variable, or this very environment.

    Raises:
        MissingExtraError: none of them.
    """
    for place in (given, os.environ.get(PYTHON_VARIABLE)):
        if place:
            if os.access(Path(place).expanduser(), os.X_OK):
                return str(Path(place).expanduser())
            raise BetterSynthError(
                t("no Python at this place"), got=place, hint=t("set {name} to the Python", name=PYTHON_VARIABLE)
            )
    if importlib.util.find_spec("data_juicer") is not None:
        return sys.executable
    error = MissingExtraError(t("an operator of Data-Juicer"), "data-juicer", missing="data_juicer")
    error.hint = t(
        "{install}, or keep it in an environment of its own and set {name} to that Python",
        install=error.hint,
        name=PYTHON_VARIABLE,
    )
    raise error


@dataclass
class Server:
    """One process with Data-Juicer loaded. It starts at the first request and dies with this process."""

    python: str
    deaths: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = None
    _code: str = ""
    """Digest of the user's files that it has loaded."""
    answers: dict[Any, Any] = field(default_factory=dict)
    """Answers of the last batch that had a failing row, by row; the engine asks again for its halves."""

    def ask(self, header: dict[str, Any], table: Any = None) -> tuple[dict[str, Any], Any]:
        """Send a request and wait for the answer.

        Raises:
            Died: the process ended or took too long. BetterSynthError: the operator cannot be made or used at all.
        """
        if "custom" in header:
            self._take_up(header["custom"], is_first=header["do"] == "declare")
        process = self._running()
        assert process.stdin is not None and process.stdout is not None  # both are pipes
        try:
            _send(process.stdin, header, table)
            answer = _receive(process.stdout, float(os.environ.get(TIMEOUT_VARIABLE, _TIMEOUT_S)))
        except (OSError, EOFError, TimeoutError) as error:
            reason = self._why(error)
            self.close()
            self.deaths += 1
            if self.deaths > _MAX_DEATHS:
                raise BetterSynthError(
                    t("Data-Juicer's process died {n} times; last: {reason}", n=self.deaths, reason=reason),
                    where=str(header.get("operator", "")),
                ) from error
            raise Died(reason) from error
        found, _ = answer
        if "stop" in found:
            raise BetterSynthError(
                t("Data-Juicer cannot use this operator"),
                where=str(header.get("operator", "")),
                got=found["stop"],
                hint=t("docs/operators.md says what each operator needs"),
            )
        if "failed" in found:
            raise DataError(str(found["failed"]))
        return answer

    def _take_up(self, custom: dict[str, Any], *, is_first: bool) -> None:
        """Start anew where other files of the user are loaded, or other versions of them; a module is loaded once."""
        digest = str(custom["digest"])
        if self._code == digest and self._process is not None and self._process.poll() is None:
            return
        if self._code not in ("", digest):
            self.close()
            self.answers = {}
        if not is_first and code_digest(custom["paths"]) != digest:
            raise BetterSynthError(
                t("files of custom operators changed since the recipe was read"),
                got=", ".join(custom["paths"]),
                hint=t("run the same command again"),
            )
        self._code = digest

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
            offline = env.get(_OFFLINE[0], "1")
            env |= {**_NO_INSTALLS, **{key: env.get(key, offline) for key in _OFFLINE}}
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
            command = [self.python, str(Path(__file__).with_name("_server.py"))]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, env=env)
        return self._process

    def _why(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return t("no answer in time; {name} sets the limit", name=TIMEOUT_VARIABLE)
        code = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout=5)
        return t("it ended with {code}: {line}", code=code, line=self._last_line())

    def _last_line(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4000))
        lines = [line for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else ""

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None


def code_digest(paths: Sequence[str]) -> str:
    """Digest of Python files and of those in package folders; places do not count."""
    found = []
    for root in map(Path, paths):
        files = sorted(root.rglob("*.py")) if root.is_dir() else [root]
        found += [[str(file.relative_to(root.parent)), digest_file(file)] for file in files]
    return digest_json(found)


@lru_cache(maxsize=4)
def server(python: str) -> Server:
    """The one process of this Python."""
    return Server(python)


def _send(stream: IO[bytes], header: dict[str, Any], table: Any) -> None:
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


def _receive(stream: IO[bytes], timeout_s: float) -> tuple[dict[str, Any], Any]:
    until = time.monotonic() + timeout_s
    header = json.loads(_part(stream, until))
    body = _part(stream, until)
    return header, pa.ipc.open_stream(body).read_all() if body else None


def _part(stream: IO[bytes], until: float) -> bytes:
    return _exactly(stream, int.from_bytes(_exactly(stream, 8, until), "little"), until)


def _exactly(stream: IO[bytes], size: int, until: float) -> bytes:
    found = bytearray()
    while len(found) < size:
        ready, _, _ = select.select([stream], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError
        part = os.read(stream.fileno(), min(size - len(found), 1 << 20))
        if not part:
            raise EOFError
        found += part
    return bytes(found)
