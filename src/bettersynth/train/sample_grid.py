"""Pictures of fixed prompts drawn while training: a grid every so many steps, from the same start noise each time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.models.bagel.draw import DrawSettings
from bettersynth.models.bagel.family import unwrap
from bettersynth.models.bagel.interleave import Interleaver, Request
from bettersynth.models.bagel.processor import UnifiedProcessor
from bettersynth.train.callbacks import Callback, StepView
from bettersynth.train.prepare import COMPUTE_DTYPES

FOLDER = "samples"
_LINE_PX = 14
_LETTER_PX = 6
_COLUMNS = 4
_BATCH = 8


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines are left out.

    Raises:
        DataError: the file is missing or empty.
    """
    if not path.is_file():
        raise DataError(t("file not found"), where=f"unified.sample_prompts {path}")
    prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not prompts:
        raise DataError(t("no prompt in this file"), where=str(path), expected=t("one prompt a line"))
    return prompts


class SampleGrid(Callback):
    """Writes ``samples/STEP.png``, with the weights that would be published: the average if there is one.

    Prompt i is drawn from seed i, so that grids differ by the training alone; no random number of the training is used.

    Args:
        report: told of every grid.

    Raises:
        DataError: the prompts cannot be read.
    """

    def __init__(self, config: StageConfig, processor: UnifiedProcessor, out: Path, report: Callback) -> None:
        settings = config.unified
        assert settings is not None and settings.sample_prompts is not None
        self.prompts = read_prompts(settings.sample_prompts)
        self._ids = [processor.encoder.tokenizer.encode(prompt) for prompt in self.prompts]
        side = processor.encoder.vae_rule.max_size
        width, height = settings.sample_size or (side, side)
        self._hw = (height, width)
        self._draw = DrawSettings(num_timesteps=settings.sample_timesteps)
        self._every = settings.sample_steps or config.eval_steps or config.save_steps
        self._precision = config.precision
        self._out, self._report = out / FOLDER, report

    def on_step(self, view: StepView) -> None:
        """Draw where it is due."""
        if view.step % self._every and view.step != view.total_steps:
            return
        model = unwrap(view.model)
        is_cast = self._precision != "fp32"
        cast = torch.autocast(model.device.type, dtype=COMPUTE_DTYPES[self._precision], enabled=is_cast)
        model.eval()
        with nullcontext() if view.average is None else view.average.applied(), torch.no_grad(), cast:
            images = self._images(Interleaver(model, settings=self._draw))
        model.train()
        path = self._out / f"{view.step:06d}.png"
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            grid(images, self.prompts).save(path)
        except OSError as error:
            hint = t("choose a writable output folder with free space")
            raise DataError(t("cannot write the file"), where=str(path), got=error.strerror, hint=hint) from error
        self._report.on_pictures(view.step, path)

    def _images(self, interleaver: Interleaver) -> list[np.ndarray]:
        requests = [Request(segments=[ids], image_hw=self._hw, seed=seed) for seed, ids in enumerate(self._ids)]
        images: list[np.ndarray] = []
        for begin in range(0, len(requests), _BATCH):
            replies = interleaver.answer(requests[begin : begin + _BATCH])
            images += [reply.image for reply in replies if reply.image is not None]
        return images


def grid(images: Sequence[np.ndarray], prompts: Sequence[str]) -> Image.Image:
    """uint8 (H, W, 3) pictures of one size in rows of four, each with the beginning of its prompt below."""
    height, width = images[0].shape[:2]
    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + _LINE_PX)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        x, y = number % columns * width, number // columns * (height + _LINE_PX)
        sheet.paste(Image.fromarray(image), (x, y))
        shown = prompt[: max(1, width // _LETTER_PX)].encode("ascii", "replace").decode()
        pen.text((x + 1, y + height + 1), shown, fill="black")
    return sheet
