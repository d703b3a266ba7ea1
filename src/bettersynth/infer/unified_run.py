"""Many requests to a folder of pictures and one file of results; running it again continues where it stopped."""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from bettersynth.core.artifact import Artifact, write_atomic, write_manifest
from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors, DataError
from bettersynth.core.fingerprint import digest_bytes, digest_file, digest_json
from bettersynth.core.lang import t
from bettersynth.formats.jsonl import text_lines
from bettersynth.infer.unified import InterleaveInferencer
from bettersynth.infer.unified_options import RENAMED
from bettersynth.infer.unified_types import UnifiedRequest, UnifiedResult, request_of
from bettersynth.models.bagel.files import AE_FILE, TOKENIZER_FILE, find_model_file

RESULTS, LOG = "results.jsonl", "results.partial.jsonl"
_PROMPT_KEYS = ("prompt", "text_prompt", "segments", "conversations")
_NOT_IN_FILES = ("parts", "noise", "settings", "overrides")


@dataclass(frozen=True, slots=True)
class Job:
    """A request with its name; the name begins the names of its pictures."""

    id: str
    request: UnifiedRequest

    def digest(self, model: str) -> str:
        """Digest of all that decides the answer."""
        return digest_json({"model": model, "request": _plain(self.request)})


def read_jobs(path: Path, options: Mapping[str, Any]) -> list[Job]:
    """Requests from a JSONL file.

    A line has an ``id`` (by default its number), one of ``prompt``, ``text_prompt``, ``segments`` (texts, and pictures
    as ``{"type": "image", "image_path": ...}`` relative to the file) and ``conversations``, and any option of
    :class:`UnifiedRequest` and of the drawing settings, which goes before ``options``.

    Raises:
        ConfigErrors: every line that cannot be used, at once. DataError: no such file, or not UTF-8.
    """
    jobs: list[Job] = []
    problems: list[BetterSynthError] = []
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            jobs.append(_job(json.loads(line), number, path.parent, options))
        except BetterSynthError as error:
            place = where if error.where is None else f"{where} {error.where}"
            problems.append(_at(error, place))
        except (ValueError, RecursionError) as error:
            problems.append(ConfigError(t("not readable JSON"), where=where, got=error))
    names = [job.id for job in jobs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(ConfigError(t("two requests have the same id"), where=str(path), got=name))
    if problems:
        raise ConfigErrors(problems, where=str(path))
    return jobs


def _at(error: BetterSynthError, where: str) -> ConfigError:
    return ConfigError(error.message, where=where, got=error.got, expected=error.expected, hint=error.hint)


def _job(line: Any, number: int, folder: Path, options: Mapping[str, Any]) -> Job:
    if not isinstance(line, dict):
        raise ConfigError(
            t("not a JSON object but a {got}", got=type(line).__name__), expected='{"id": ..., "prompt": ...}'
        )
    given = [key for key in _PROMPT_KEYS if key in line]
    if len(given) != 1:
        raise ConfigError(t("give exactly one of: {names}", names=", ".join(_PROMPT_KEYS)), got=", ".join(given) or "-")
    prompt = line[given[0]]
    if isinstance(prompt, list):
        prompt = [_with_path(item, folder) for item in prompt]
    if prompt in ("", []):
        raise ConfigError(t("nothing was asked for"), where=given[0], expected=t("a text or a picture"))
    own = {key: value for key, value in line.items() if key not in (*_PROMPT_KEYS, "id")}
    for key in _NOT_IN_FILES:
        if key in own:
            raise ConfigError(t("unknown option '{name}'", name=key), where=key)
    name = line.get("id")
    renamed = {RENAMED.get(key, key): value for key, value in own.items()}
    return Job(f"{number:05d}" if name is None else str(name), request_of(prompt, {**options, **renamed}))


def _with_path(item: Any, folder: Path) -> Any:
    if isinstance(item, dict) and item.get("type") == "image" and isinstance(item.get("image_path"), str):
        return {**item, "image_path": folder / item["image_path"]}
    return item


def model_digest(folder: Path, *, weights: Path | None = None, dtype: str = "auto") -> str:
    """Digest of the files that decide the answers, and of the precision."""
    files = [
        weights or find_model_file(folder),
        folder / AE_FILE,
        folder / TOKENIZER_FILE,
        *folder.glob("*config.json"),
    ]
    return digest_json({"dtype": dtype, **{p.name: digest_file(p) for p in sorted(files) if p.is_file()}})


def other_answers(folder: Path, jobs: Sequence[Job], digest: str) -> list[str]:
    """Names of the answers in a folder that these jobs would replace or leave out of its results."""
    wanted = {job.id: job.digest(digest) for job in jobs}
    return [name for name, line in _read_lines(folder).items() if line.get("digest") != wanted.get(name)]


def free_folder(folder: Path, jobs: Sequence[Job], digest: str) -> Path:
    """This folder, or the first of ``FOLDER-2``, ``FOLDER-3`` ... in which these jobs replace no other answers."""
    candidates = itertools.chain([folder], (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2)))
    return next(candidate for candidate in candidates if not other_answers(candidate, jobs, digest))


def check_jobs(inferencer: InterleaveInferencer, jobs: Sequence[Job], folder: Path) -> None:
    """Whether all can be answered and written, before the first is.

    Raises:
        ConfigErrors: sizes that cannot be drawn and conversations that are too long, with their names.
        DataError: the folder cannot be written to.
    """
    problems: list[BetterSynthError] = []
    for job in jobs:
        try:
            inferencer.check(job.request)
        except ConfigError as error:
            problems.append(_at(error, f"{job.id} {error.where}"))
    if problems:
        raise ConfigErrors(problems)
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)


def batches(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Jobs in their order, so many at a time."""
    for start in range(0, len(jobs), size):
        yield list(jobs[start : start + size])


def run_jobs(
    inferencer: InterleaveInferencer,
    jobs: Sequence[Job],
    folder: Path,
    *,
    digest: str,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Artifact:
    """Answer all jobs into a folder: ``ID-N.png`` and ``results.jsonl``, the manifest last.

    Args:
        inferencer: who answers.
        jobs: names are unique.
        folder: made if absent; answers that are there with the same digest are kept.
        digest: of the model, see :func:`model_digest`.
        batch_size: requests answered together.
        progress: told (done, all).

    Raises:
        ConfigErrors, DataError: see :func:`check_jobs`.
    """
    check_jobs(inferencer, jobs, folder)
    wanted = {job.id: job.digest(digest) for job in jobs}
    done = {key: line for key, line in _read_lines(folder).items() if line.get("digest") == wanted.get(key)}
    left = [job for job in jobs if job.id not in done]
    progress(len(jobs) - len(left), len(jobs))
    for batch in batches(left, batch_size):
        results = inferencer.generate_batch([job.request for job in batch])
        lines = [
            {**save_result(result, folder, job.id), "digest": wanted[job.id]}
            for job, result in zip(batch, results, strict=True)
        ]
        _append(folder / LOG, lines)
        done |= {line["id"]: line for line in lines}
        progress(len(done), len(jobs))
    ordered = [done[job.id] for job in jobs]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in ordered)
    write_atomic(folder / RESULTS, text.encode())
    (folder / LOG).unlink(missing_ok=True)
    pictures = [output["image"] for line in ordered for output in line["outputs"] if "image" in output]
    facts = {"model": digest, "requests": len(jobs), "pictures": len(pictures)}
    return write_manifest(folder, kind="predictions", facts=facts, files=[RESULTS, *pictures])


def save_result(result: UnifiedResult, folder: Path, name: str) -> dict[str, Any]:
    """Write the pictures of a result and return it as plain JSON values."""
    outputs: list[dict[str, Any]] = []
    for output in result.outputs:
        plain: dict[str, Any] = {**asdict(output.decision), "kind": output.kind}
        if output.image is not None:
            plain["image"] = f"{_safe(name)}-{sum('image' in other for other in outputs)}.png"
            write_atomic(folder / plain["image"], png(output.image))
        else:
            plain |= {"text": output.text, "ids": list(output.ids), "finish": output.finish}
        outputs.append(plain)
    decisions = [asdict(decision) for decision in result.decisions]
    return {"id": name, "seed": result.seed, "outputs": outputs, "decisions": decisions}


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _safe(name: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name).lstrip(".")
    return kept if kept == name else f"{kept[:80]}_{digest_bytes(name.encode())[:8]}"


def _read_lines(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in (folder / RESULTS, folder / LOG):
        for line in path.read_bytes().split(b"\n") if path.is_file() else ():
            try:
                record = json.loads(line)
                pictures = [output["image"] for output in record["outputs"] if "image" in output]
                if all((folder / name).is_file() for name in pictures):
                    found[record["id"]] = record
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill; it is asked again
    return found


def _append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(b"\n" + data.encode())
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            t("cannot write the file"),
            where=str(path),
            got=error.strerror or str(error),
            hint=t("choose a writable output folder with free space"),
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Image.Image):
        return {"mode": value.mode, "size": list(value.size), "bytes": digest_bytes(value.tobytes())}
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
