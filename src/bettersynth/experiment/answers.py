"""Finding the scored answers of a model, or of all seeds of a condition, and what is known of the questions."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bettersynth.core.artifact import Artifact
from bettersynth.core.errors import BetterSynthError, ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.core.record import EvalResult
from bettersynth.core.registry import did_you_mean
from bettersynth.core.sample import ImageRef
from bettersynth.eval.protocol import Question, task_module
from bettersynth.eval.runner import ask, open_target
from bettersynth.eval.score import QUESTIONS, load_results

CATEGORIES = re.compile(r" (?=[a-z0-9_]+/)")
"""Between categories in the table of questions: their names (``l2/logic reasoning``) may hold spaces."""
SEPARATOR = " | "
_TRIALS = "output/experiments/*/trials"
_BESIDE = "demo/*/eval_results"
"""Where the demo keeps the models that are not the kit's own."""
_MODEL = "MGM-2B-Finetune-"
_LETTER = re.compile("[A-Z]")


@dataclass(frozen=True, slots=True)
class Answered:
    """How one question fared: the answer as given and as read, what was expected, and its score in 0-1."""

    question_id: str
    category: str
    prediction: str
    extracted: str
    answers: str
    score: float

    @property
    def categories(self) -> list[str]:
        """Names such as ``category/ocr``; a question may have several."""
        return CATEGORIES.split(self.category) if self.category else []


@dataclass(frozen=True, slots=True)
class Facts:
    """What the question files say of one question.

    Args:
        text: the bare question. expected: the best known answer, an option's text where options are chosen from.
        cluster: what was drawn together with it: the picture's digest.
        image: path or encoded picture.
    """

    text: str
    expected: str
    cluster: str
    image: ImageRef | bytes | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """One model, or the same condition trained from several seeds.

    Args:
        folders: seed (empty for a single model) to the folder that holds its scores.
    """

    name: str
    folders: Mapping[str, Path]


def find_side(name: str | None, workspace: Path) -> Side:
    """What a user means: a folder, a model in ``output/eval_results``, a trial or condition of an experiment or demo.

    A condition (``raw``, or ``EXPERIMENT/raw`` when several experiments have it) stands for all its seeds.

    Raises:
        DataError, ConfigError: nothing of that name, or several to choose from.
    """
    base = workspace / "output" / "eval_results"
    if name is None:
        return _only(base)
    experiment, _, inner = name.rpartition("/")
    trials = [folder for folder in sorted(workspace.glob(_TRIALS)) if experiment in ("", folder.parent.name)]
    bases = [base, *sorted(workspace.glob(_BESIDE))]
    places = [Path(name), *(folder / name for folder in bases)]
    found = [side for side in map(_side, places) if side][:1]
    found = found or [side for side in (_side(folder / inner) for folder in trials) if side]
    found = found or [Side(name, s.folders) for s in (_side(folder / f"{_MODEL}{name}") for folder in bases) if s][:1]
    if len(found) > 1 and found[0].folders != found[1].folders and not Path(name).is_dir():
        places = ", ".join(str(next(iter(side.folders.values())).parent) for side in found)
        raise ConfigError(t("several experiments have this condition"), got=places, expected="EXPERIMENT/CONDITION")
    if not found:
        known = {_condition(path.name) for folder in trials for path in folder.iterdir() if path.is_dir()}
        known |= {path.name for folder in bases for path in folder.glob("*") if path.is_dir()}
        raise DataError(
            t("no model, folder or condition of that name"),
            where=str(workspace),
            got=name,
            expected=_few(sorted(known)),
            hint=did_you_mean(name, known)
            or t("make them with: bettersynth eval, or name their kit with: --workspace DIR"),
        )
    return found[0]


def _only(base: Path) -> Side:
    found = sorted(path for path in base.glob("*") if path.is_dir())
    if len(found) == 1:
        return Side(found[0].name, {"": found[0]})
    if not found:
        raise DataError(
            t("no scores here"), where=str(base), hint=t("make them with: bettersynth eval, or bettersynth score")
        )
    raise ConfigError(t("several models were evaluated; name one or two"), got=", ".join(path.name for path in found))


def _side(place: Path) -> Side | None:
    if place.is_dir():
        return Side(place.resolve().name, {"": place})
    seeds = {
        path.name.removeprefix(f"{place.name}-"): path
        for path in place.parent.glob(f"{place.name}-*")
        if path.is_dir() and _condition(path.name) == place.name
    }
    return Side(place.name, dict(sorted(seeds.items()))) if seeds else None


def _condition(trial: str) -> str:
    """The condition of a trial folder: its name without the seed."""
    head, _, tail = trial.rpartition("-")
    return head if head and tail.isdigit() else trial


def _few(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "") or t("none")


def scores_folders(path: Path) -> list[Path]:
    """The scores folders at or below a path: a scores folder, a predictions folder, or all of a model's.

    Raises:
        DataError: there is none.
    """
    if not path.is_dir():
        raise DataError(t("no such folder"), where=str(path))
    inside = sorted(file.parent for file in path.rglob("manifest.json") if file.parent.name == "scores")
    found = [folder for folder in [path, *inside] if _is_scores(folder)]
    if not found:
        raise DataError(
            t("no scores here"),
            where=str(path),
            expected=t("eval_results/NAME, or one of its folders"),
            hint=t("make them with: bettersynth eval, or bettersynth score"),
        )
    return list(dict.fromkeys(found))


def _is_scores(folder: Path) -> bool:
    return Artifact.exists(folder) and Artifact.load(folder).kind == "scores"


def results(path: Path) -> list[EvalResult]:
    """All scores at or below a path, with provenance.

    Raises:
        DataError, ProvenanceError: none there, changed files, or a score that does not say where it comes from.
    """
    return [result for folder in scores_folders(path) for result in load_results(folder)]


def answered(path: Path) -> dict[str, dict[str, Answered]]:
    """Scoring protocol to question id to how it fared."""
    table: dict[str, dict[str, Answered]] = {}
    for folder in scores_folders(path):
        with (folder / QUESTIONS).open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                text = {name: row[name] for name in ("category", "prediction", "extracted", "answers")}
                one = Answered(row["question_id"], **text, score=float(row["score"]))
                table.setdefault(row["protocol"], {})[one.question_id] = one
    return table


# ---------------------------------------------------------------- what was asked


def question_facts(path: Path, data: Path | None) -> dict[str, dict[str, Facts]]:
    """Scoring protocol to question id to what the question files say; empty for protocols whose files are not there.

    Args:
        path: folder with scores.
        data: evaluation folder that the answers were made from, or None.
    """
    found: dict[str, dict[str, Facts]] = {}
    read: dict[str, dict[str, Facts]] = {}
    for folder in scores_folders(path):
        prompts = str(Artifact.load(folder).facts.get("protocol", ""))
        if prompts not in read:
            read[prompts] = _read_facts(prompts, data) if data is not None else {}
        with (folder / QUESTIONS).open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                known = read[prompts].get(row["question_id"])
                if known is not None:
                    found.setdefault(row["protocol"], {})[row["question_id"]] = _with_answer(known, row["answers"])
    return found


def _read_facts(protocol: str, data: Path) -> dict[str, Facts]:
    try:
        target = open_target(protocol, data)
        questions = ask(target).questions
    except BetterSynthError:
        return {}  # the page then goes without pictures, and says so
    bare = getattr(task_module(target.task), "bare_question", None)
    facts: dict[str, Facts] = {}
    for question in questions:
        text = str(bare(question)) if bare is not None else question.text
        one = Facts(text, "", question.image_digest or question.unit, question.image, _options(question))
        facts.setdefault(question.unit, one)
        facts.setdefault(question.key, one)
    return facts


def _options(question: Question) -> Mapping[str, str]:
    options = question.meta.get("options", {})
    return options if isinstance(options, Mapping) else {}


def _with_answer(facts: Facts, answers: str) -> Facts:
    """The facts with the text of the right option, or the answer that most annotators gave."""
    given = answers.split(SEPARATOR)
    if facts.options:
        expected = facts.options.get(given[0], given[0])
    else:
        expected = Counter(given).most_common(1)[0][0]
    return Facts(facts.text, str(expected), facts.cluster, facts.image, facts.options)


def letters_of(text: str, count: int) -> list[str]:
    """The letters in a table cell that joins one per rotation; what is no letter becomes an empty string."""
    parts = text.split(SEPARATOR)
    parts = parts if len(parts) == count else [text] * count
    return [part if _LETTER.fullmatch(part) else "" for part in parts]
