"""Answers on disk: an append-only log while a model is being asked, one sorted file with a manifest when it is done.

A prediction line says everything that made it::

    {"key": "a0", "question_id": "a0", "prompt": "...", "text": "stop", "token_ids": [..], "finish": "stop",
     "provenance": {"checkpoint": "..", "prompt": "..", "decoding": "..", "protocol": "textvqa-ocr", "data": ".."}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bettersynth.core.artifact import Artifact, write_atomic
from bettersynth.core.errors import DataError, ProvenanceError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.eval.protocol import PROVENANCE_KEYS, Question

FILE = "predictions.jsonl"
LOG = "predictions.partial.jsonl"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer and where it comes from."""

    key: str
    question_id: str
    prompt: str
    text: str
    token_ids: tuple[int, ...]
    finish: str
    provenance: Mapping[str, str]

    def line(self) -> str:
        """The prediction as one line of JSON, keys in a fixed order."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def data_digest(questions: Sequence[Question], prompts: Mapping[str, str]) -> str:
    """Digest of everything that is asked: keys, prompts and pictures, in order."""
    return digest_json([[q.key, prompts[q.key], q.image_digest] for q in questions])


class PredictionLog:
    """The append-only log of one run. A batch is one write followed by fsync; a torn last line is ignored."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG

    def read(self, expected: Mapping[str, Mapping[str, str]]) -> dict[str, Prediction]:
        """Answers with the expected provenance, by key; those of another checkpoint or prompt are not reused."""
        found: dict[str, Prediction] = {}
        if not self.path.is_file():
            return found
        for line in self.path.read_bytes().split(b"\n"):
            try:
                prediction = parse(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill; its question is asked again
            if expected.get(prediction.key) == prediction.provenance:
                found[prediction.key] = prediction
        return found

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Add one batch durably."""
        data = "".join(prediction.line() for prediction in predictions).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                # A line torn by an earlier kill must not swallow the first line of this batch.
                stream.write(b"\n" + data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise DataError(
                t("cannot write the file"),
                where=str(self.path),
                got=error.strerror or str(error),
                hint=t("choose a writable output folder with free space"),
            ) from error

    def remove(self) -> None:
        """Delete the log; called when the finished file is in place."""
        self.path.unlink(missing_ok=True)


def parse(raw: Mapping[str, object]) -> Prediction:
    """A prediction from its JSON object; KeyError or TypeError when it is not one."""
    provenance = raw["provenance"]
    if not isinstance(provenance, dict):
        raise TypeError("provenance")
    ids = raw["token_ids"]
    if not isinstance(ids, list):
        raise TypeError("token_ids")
    key, question_id, prompt, text = (str(raw[name]) for name in ("key", "question_id", "prompt", "text"))
    return Prediction(key, question_id, prompt, text, tuple(ids), str(raw["finish"]), dict(provenance))


def write_all(folder: Path, predictions: Iterable[Prediction]) -> None:
    """Write the finished file."""
    write_atomic(folder / FILE, "".join(prediction.line() for prediction in predictions).encode())


def load(folder: Path) -> tuple[Artifact, list[Prediction]]:
    """The artifact and its predictions, every line checked for provenance.

    Raises:
        DataError: nothing finished here.
        ProvenanceError: answers without a manifest, changed since they were made, or lines that do not say which
            checkpoint, prompt, decoding, protocol and questions they come from.
    """
    if not Artifact.exists(folder) and (folder / FILE).is_file():
        raise ProvenanceError(
            t("these answers have no manifest, so nothing says which checkpoint gave them"),
            where=str(folder),
            hint=t("make them again from the checkpoint with: bettersynth eval"),
        )
    artifact = Artifact.load(folder, kind="predictions")
    changed = artifact.verify()
    if changed:
        raise ProvenanceError(
            t("files were changed after the answers were made"),
            where=str(folder),
            got=", ".join(changed),
            hint=t("make them again from the checkpoint with: bettersynth eval"),
        )
    predictions = []
    for number, line in enumerate((folder / FILE).read_bytes().splitlines(), 1):
        where = f"{folder / FILE}:{number}"
        try:
            prediction = parse(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ProvenanceError(t("a prediction without provenance"), where=where, got=str(error)) from error
        missing = [key for key in PROVENANCE_KEYS if not prediction.provenance.get(key)]
        if missing:
            raise ProvenanceError(
                t("a prediction without provenance"), where=where, got=t("no {keys}", keys=", ".join(missing))
            )
        predictions.append(prediction)
    return artifact, predictions
