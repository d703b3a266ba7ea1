"""A model family of a few hundred parameters, with dropout, for tests of the trainer; also a script (see serve)."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bettersynth.core.sample import Conversation
from bettersynth.media.open import open_image
from bettersynth.models.family import BaseFolders, Batch, Example, LossOutput, Pixels, Rejected

WIDTH = 8
VOCAB = 64


class FakeModel(nn.Module):
    """Predicts the next token from the last one and the picture's mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.connector = nn.Linear(3, WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB)
        self.tower = nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.2)
        self.checkpointed = False


@dataclass(frozen=True)
class FakeProcessor:
    """Characters to ids; a picture to its mean colour."""

    image_root: Path
    max_length: int

    def encode(self, conversation: Conversation) -> Example | Rejected:
        ids, labels = [1], [-100]
        for segment in conversation.segments:
            piece = [2 + ord(c) % (VOCAB - 2) for c in segment.text]
            ids += piece
            labels += piece if segment.is_target else [-100] * len(piece)
        if len(ids) > self.max_length:
            return Rejected(conversation.id, "too_long", f"{len(ids)} tokens")
        if all(label == -100 for label in labels[1:]):
            return Rejected(conversation.id, "no_target", "nothing to learn")
        return Example(conversation.id, ids, labels, conversation.images, len(ids) + 4 * len(conversation.images))

    def load_pixels(self, example: Example) -> list[Pixels]:
        return [np.asarray(open_image(self.image_root / image.path)) for image in example.images]

    def collate(self, examples: Sequence[Example], pixels: Sequence[Sequence[Pixels]]) -> Batch:
        length = max(len(example.input_ids) for example in examples)
        ids = torch.zeros(len(examples), length, dtype=torch.long)
        labels = torch.full((len(examples), length), -100)
        for row, example in enumerate(examples):
            ids[row, : len(example.input_ids)] = torch.tensor(example.input_ids)
            labels[row, : len(example.labels)] = torch.tensor(example.labels)
        means = [np.mean([p.mean((0, 1)) for p in group], axis=0) if group else np.zeros(3) for group in pixels]
        return {"ids": ids, "labels": labels, "colour": torch.tensor(np.stack(means) / 255, dtype=torch.float32)}


class FakeFamily:
    """See bettersynth.models.family.ModelFamily."""

    name = "fake"

    def load_base(self, spec: BaseFolders, *, dtype: torch.dtype | None, seed: int) -> FakeModel:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return FakeModel().to(dtype)

    def load_checkpoint(self, folder: Path, *, dtype: torch.dtype | None, model_zoo: Path | None = None) -> FakeModel:
        model = FakeModel()
        model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
        return model.to(dtype)

    def load_adapter(self, model: FakeModel, path: Path) -> list[str]:
        state = torch.load(path / "mm_projector.bin", weights_only=True)
        model.connector.load_state_dict(state)
        return list(state)

    def processor(self, model: object, *, image_aspect_ratio: str, max_length: int, image_root: Path) -> FakeProcessor:
        return FakeProcessor(image_root, max_length)

    def loss(self, model: FakeModel, batch: Batch) -> LossOutput:
        with torch.no_grad():
            colour = model.tower(batch["colour"].to(model.tower.weight.dtype))
        state = model.embed(batch["ids"]) + model.connector(colour.to(model.connector.weight.dtype)).unsqueeze(1)
        logits = model.head(model.dropout(torch.tanh(state)))[:, :-1].float()
        targets = batch["labels"][:, 1:]
        loss = nn.functional.cross_entropy(
            logits.reshape(-1, VOCAB), targets.reshape(-1), ignore_index=-100, reduction="sum"
        )
        return LossOutput(loss, (targets != -100).sum())

    def trainable(self, model: FakeModel, stage: int) -> list[tuple[str, nn.Parameter]]:
        named = [(name, p) for name, p in model.named_parameters() if not name.startswith("tower")]
        return [(name, p) for name, p in named if stage == 2 or name.startswith("connector")]

    def enable_gradient_checkpointing(self, model: FakeModel) -> None:
        model.checkpointed = True

    def save_adapter(self, model: FakeModel, folder: Path) -> None:
        torch.save(model.connector.state_dict(), folder / "mm_projector.bin")
        (folder / "config.json").write_text("{}")

    def save_checkpoint(self, model: FakeModel, folder: Path, *, dtype: torch.dtype) -> None:
        torch.save(model.state_dict(), folder / "model.pt")
        (folder / "config.json").write_text("{}")


def run_job(settings: dict[str, Any], out: str, kill_at: int) -> int:
    """Train one stage and write what a user would see to ``OUT.txt``; returns the exit code.

    ``kill_at`` above 0: SIGKILL after that step, before anything of it is saved; below 0: SIGINT; 0: undisturbed.
    """
    from bettersynth.config.train import stage_config
    from bettersynth.core.errors import BetterSynthError
    from bettersynth.train import stages
    from bettersynth.train.callbacks import Callback, StepView

    stages.load_family = lambda name: FakeFamily()

    class Killer(Callback):
        def on_step(self, view: StepView) -> None:
            if view.step == abs(kill_at):
                os.kill(os.getpid(), signal.SIGKILL if kill_at > 0 else signal.SIGINT)

    code = 0
    try:
        artifact = stages.run_stage(
            stage_config(settings), out=Path(out), progress=Callback(), callbacks=[Killer()] if kill_at else []
        )
        text = artifact.digest
    except BetterSynthError as error:
        text, code = error.render(), error.exit_code
    Path(f"{out}.{os.environ.get('RANK', '0')}.txt").write_text(text)
    return code


def serve() -> None:
    """Read jobs as JSON lines, run each in a forked child (torch is imported once, here), answer with exit codes.

    A job: ``{"settings": ..., "out": ..., "kill_at": 0, "ranks": [{ENVIRONMENT}, ...]}``; its ranks run side by side.
    """
    import bettersynth.train.stages  # noqa: F401 - imported before forking

    torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # pulls in 800 more modules
    for line in sys.stdin:
        job = json.loads(line)
        children = []
        for environment in job["ranks"]:
            child = os.fork()
            if child == 0:
                os.environ.update(environment)
                os._exit(run_job(job["settings"], job["out"], job["kill_at"]))
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    serve()
