"""A kit folder seen from outside: where seed data, stage-2 data, models and evaluation questions lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bettersynth.core.errors import BetterSynthError, DataError
from bettersynth.core.lang import t


@dataclass(frozen=True)
class Workspace:
    """A challenge kit or the demo's copy of its layout; paths are looked up when asked for.

    Layout::

        input/pretrain_stage_1*/{mgm_pretrain_stage_1*.jsonl, stage_1.json, images/}
        toolkit/training/data/finetuning_stage_1*/{mgm_instruction_stage_1*.json, images/}
        toolkit/training/model_zoo/
        toolkit/eval/   toolkit/eval_dev/
    """

    root: Path

    @property
    def seed_data(self) -> Path:
        """The seed pool in Data-Juicer form."""
        return self._only("input/pretrain_stage_1*/mgm_pretrain_stage_1*.jsonl", t("seed data"))

    @property
    def seed_folder(self) -> Path:
        """The folder that the seed's picture paths start from."""
        return self.seed_data.parent

    @property
    def questions(self) -> Path:
        """The seed pool in LLaVA form, which holds the original questions."""
        return self._only("input/pretrain_stage_1*/stage_1.json", t("original questions"))

    @property
    def finetune_data(self) -> Path:
        """The fixed instruction data of stage 2."""
        return self._only("toolkit/training/data/finetuning_stage_1*/mgm_instruction*.json", t("stage-2 data"))

    @property
    def model_zoo(self) -> Path:
        """The folder of base models."""
        return self._only("toolkit/training/model_zoo", t("model zoo"))

    @property
    def output(self) -> Path:
        """Where results go by default."""
        return self.root / "output"

    def eval_folder(self, split: str = "eval") -> Path:
        """Evaluation questions: ``eval``, or ``dev`` for the development split used in tuning."""
        return self._only("toolkit/eval" if split == "eval" else f"toolkit/eval_{split}", t("evaluation data"))

    def missing(self) -> list[BetterSynthError]:
        """Everything that a whole run reads and that is not there (or there twice)."""
        problems: list[BetterSynthError] = []
        for name in ("seed_data", "questions", "finetune_data", "model_zoo"):
            try:
                getattr(self, name)
            except DataError as error:
                problems.append(error)
        return problems

    def _only(self, pattern: str, what: str) -> Path:
        found = sorted(self.root.glob(pattern))
        if not found:
            raise DataError(
                t("no {what} in this workspace", what=what),
                where=str(self.root),
                expected=pattern,
                hint=self._way_out(),
            )
        if len(found) > 1:
            raise DataError(
                t("more than one {what} in this workspace", what=what),
                where=str(self.root),
                got=", ".join(str(path.relative_to(self.root)) for path in found),
                expected=pattern,
            )
        return found[0]

    def _way_out(self) -> str:
        """The next command when something is missing: a kit can fetch it, any other folder is no kit yet."""
        if (self.root / "download.sh").is_file():
            return t("fetch it with: bash {script}", script=self.root / "download.sh")
        return t("make a kit with: bettersynth init {folder}", folder="FOLDER") + t(
            ", or try: bettersynth demo --quick"
        )
