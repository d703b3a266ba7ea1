"""Give a checkpoint to others: a folder with a model card, to and from the hub when the user asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.artifact import Artifact, write_atomic
from bettersynth.core.errors import DataError, MissingExtraError, ProvenanceError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.core.record import EvalResult
from bettersynth.experiment.answers import results
from bettersynth.report.model_card import model_card

CARD = "README.md"
_ASPECTS = ("pad", "square")


def export_checkpoint(
    folder: Path,
    out: Path,
    *,
    dtype: str = "auto",
    model_zoo: Path | None = None,
    scores: Sequence[Path] = (),
    has_code: bool = True,
) -> dict[str, Any]:
    """Write a self-contained folder for transformers with its model card.

    Args:
        scores: scores folders of this very checkpoint, for the card.

    Raises:
        ProvenanceError: scores of another checkpoint.
    """
    from bettersynth.models.mgm.exchange import write_standalone
    from bettersynth.models.weights import read_json

    found = [result for place in scores for result in results(place)]
    _check_scores(folder, found)
    facts = write_standalone(folder, out, dtype=dtype, model_zoo=model_zoo, has_code=has_code)
    training = None
    if Artifact.exists(folder):
        artifact = Artifact.load(folder)
        training = {"facts": artifact.facts, "parents": artifact.parents}
    config = read_json(out / "config.json")
    name = folder.resolve().name
    card = model_card(name, config=config, weights=facts, training=training, scores=found, has_code=has_code)
    write_atomic(out / CARD, card.encode())
    return facts


def _check_scores(folder: Path, scores: Sequence[EvalResult]) -> None:
    """A score says which weights, precision and picture shape it comes from; it must be one of this checkpoint's."""
    from bettersynth.infer.checkpoint import DTYPES, checkpoint_digest

    if not scores:
        return
    mine = checkpoint_digest(folder)
    allowed = {
        digest_json({"checkpoint": mine, "dtype": dtype, "aspect": aspect}) for dtype in DTYPES for aspect in _ASPECTS
    }
    for score in scores:
        if score.provenance["checkpoint"] not in allowed:
            raise ProvenanceError(
                t("the scores come from another checkpoint"),
                where=f"{folder}: {score.protocol}",
                got=score.provenance["checkpoint"],
                hint=t("evaluate this checkpoint with: bettersynth eval"),
            )


def push(folder: Path, repo: str, *, is_public: bool = False, message: str = "Upload a checkpoint") -> str:
    """Upload a folder to a hub repository, private unless told otherwise; returns its address.

    Raises:
        DataError: no checkpoint of either family there, or the hub refuses. MissingExtraError: the library is not
            installed.
    """
    hub = _hub()
    _check_checkpoint(folder)
    try:
        api = hub.HfApi()
        address = api.create_repo(repo, private=not is_public, exist_ok=True)
        api.upload_folder(folder_path=str(folder), repo_id=repo, commit_message=message)
    except Exception as error:  # the library has dozens of kinds, all of them the hub's refusal
        raise _refused(repo, error) from error
    return str(address)


def _check_checkpoint(folder: Path) -> None:
    """Raise DataError for a folder that is no checkpoint; half of a BAGEL folder is none."""
    from bettersynth.models.bagel.files import LLM_FILE, VIT_FILE, check_folder

    if (folder / LLM_FILE).is_file() or (folder / VIT_FILE).is_file():
        check_folder(folder)
    elif not (folder / "config.json").is_file():
        expected = t("a folder with {name}", name=f"config.json | {LLM_FILE}, {VIT_FILE}")
        raise DataError(t("no checkpoint here"), where=str(folder), expected=expected)


def pull(repo: str, out: Path, *, revision: str | None = None) -> Path:
    """Download a hub repository into a folder.

    Raises:
        DataError: the hub refuses. MissingExtraError: the library is not installed.
    """
    hub = _hub()
    try:
        return Path(hub.snapshot_download(repo, revision=revision, local_dir=str(out)))
    except Exception as error:  # as above
        raise _refused(repo, error) from error


def _hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("the model hub"), "hub", missing=error.name) from error
    return huggingface_hub


def _refused(repo: str, error: Exception) -> DataError:
    return DataError(
        t("the hub refused"),
        where=repo,
        got=(str(error).splitlines() or [type(error).__name__])[0],
        hint=t("log in with: hf auth login, and check the repository's name"),
    )
