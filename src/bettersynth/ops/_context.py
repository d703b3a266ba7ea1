"""What operators share while they run: seeds, opened pictures, loaded models. One context per worker process."""

from __future__ import annotations

import os
import random
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bettersynth.core.errors import DataError
from bettersynth.core.lang import t
from bettersynth.core.sample import RowKey
from bettersynth.core.seed import derive_seed
from bettersynth.formats.data_juicer import DEFAULT_TOKENS, Tokens
from bettersynth.media.header import ImageHeader, looks_truncated, read_header, tolerate_truncation
from bettersynth.ops.base import IMAGES, KEY, Batch, row_keys

if TYPE_CHECKING:
    from PIL.Image import Image

    from bettersynth.infer.protocols import (
        Captioner,
        FaceDetector,
        ImageClassifier,
        ImageTextMatcher,
        ImageTextScorer,
        LineDetector,
        PhraseGrounder,
        Segmenter,
        TextConverter,
    )

_BOX = 4  # PIL.Image.Resampling.BOX; Pillow is only imported where pictures are opened


@dataclass(slots=True)
class OpContext:
    """Shared state of one worker.

    Args:
        seed: the run's seed.
        image_roots: folder per source file number, from which relative picture paths start.
        tokens: special tokens in force.
        on_truncated: ``load`` a picture that is cut short as far as it goes (counted in ``flags``), or refuse it.
        device: ``auto``, ``cpu`` or ``cuda``.
        flags: what was noticed, counted. elsewhere_cpu_s: CPU seconds that other processes spent on operators' behalf.
    """

    seed: int = 0
    image_roots: Sequence[Path] = ()
    tokens: Tokens = DEFAULT_TOKENS
    on_truncated: Literal["load", "quarantine"] = "load"
    device: str = "auto"
    flags: Counter[str] = field(default_factory=Counter)
    elsewhere_cpu_s: float = 0.0
    _images: dict[tuple[Path, int | None], Image] = field(default_factory=dict)
    _truncated: set[str] = field(default_factory=set)
    _headers: dict[str, ImageHeader] = field(default_factory=dict)
    _places: dict[tuple[int, str], Path] = field(default_factory=dict)
    _placed: tuple[Batch, list[list[str]]] | None = None
    _models: dict[tuple[str, str], Any] = field(default_factory=dict)

    def seed_of(self, operator: str, key: RowKey) -> int:
        """A seed for one row and operator; the same in every run with the same run seed."""
        return derive_seed(self.seed, operator, str(key))

    def generator(self, operator: str, key: RowKey | None = None) -> random.Random:
        """A generator for one row and operator, or for the operator as a whole."""
        return random.Random(derive_seed(self.seed, operator, str(key) if key else ""))

    def image_path(self, file: int, path: str) -> Path:
        """Where a picture lies."""
        return Path(self._where(file, path))

    def _where(self, file: int, path: str) -> str:
        if file >= len(self.image_roots) or path.startswith(os.sep):
            return path
        return f"{self.image_roots[file]}/{path}"  # half the cost of joining two path objects

    def image_paths(self, batch: Batch) -> list[list[Path]]:
        """For each row the places of its pictures."""
        files = batch.column(KEY[0]).to_pylist()
        rows = batch.column(IMAGES).to_pylist()
        return [[self._place(file, path) for path in row or ()] for file, row in zip(files, rows, strict=True)]

    def image_places(self, batch: Batch) -> list[list[str]]:
        """As :meth:`image_paths`, as text: path objects take as long as reading a header.

        Filters that score the same batch, one after the other, share the answer.
        """
        if self._placed is None or self._placed[0] is not batch:
            files = batch.column(KEY[0]).to_pylist()
            rows = batch.column(IMAGES).to_pylist()
            places = [[self._where(file, path) for path in row or ()] for file, row in zip(files, rows, strict=True)]
            self._placed = (batch, places)
        return self._placed[1]

    def _place(self, file: int, path: str) -> Path:
        """As :meth:`image_path`, but each path object is made, and hashed, once per group of rows."""
        found = self._places.get((file, path))
        if found is None:
            found = self._places[file, path] = self.image_path(file, path)
        return found

    def header(self, path: Path | str) -> ImageHeader:
        """Size of a picture from its header, EXIF orientation applied.

        Raises:
            DataError: missing or no picture.
        """
        place = str(path)
        header = self._headers.get(place)
        if header is None:
            header = self._headers[place] = read_header(place, allow_truncated=self.on_truncated == "load")
            if header.is_cut and self.on_truncated == "load":
                self._note_truncated(place)
        return header

    def file_size(self, path: Path | str) -> int:
        """Size of a file in bytes; the file is not opened.

        Raises:
            DataError: missing, or no file.
        """
        known = self._headers.get(str(path))
        if known is not None:
            return known.size_bytes
        try:
            found = os.stat(path)
        except OSError as error:
            raise DataError(t("image not found"), where=str(Path(path))) from error
        if not stat.S_ISREG(found.st_mode):
            raise DataError(t("image not found"), where=str(Path(path)))
        return found.st_size

    def image(self, path: Path) -> Image:
        """A picture as RGB, EXIF orientation applied; decoded once per group of rows that are worked on together.

        Raises:
            DataError: missing, not a picture, or cut short while ``on_truncated`` is ``quarantine``.
        """
        return self._decoded(path, None)

    def small_image(self, path: Path, side_px: int) -> Image:
        """The picture with a longer side of at most ``side_px``, decoded at a fraction of its size where it can be.

        Always made from the file in the same way, whatever other operators opened, so that results do not depend on
        the recipe around an operator. Raises like :meth:`image`.
        """
        return self._decoded(path, side_px)

    def _decoded(self, path: Path, side_px: int | None) -> Image:
        if (path, side_px) not in self._images:
            if side_px is None or self._is_scalable(path, side_px):
                image = self._open(path, side_px)
            else:
                image = self._decoded(path, None)  # the same pixels as a decode of its own
            if side_px is not None and max(image.size) > side_px:
                scale = side_px / max(image.size)
                image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), _BOX)
            self._images[path, side_px] = image
        return self._images[path, side_px]

    def _is_scalable(self, path: Path, side_px: int) -> bool:
        """Whether decoding at half the size or less would still leave ``side_px``; only JPEG can do that."""
        header = self.header(path)
        return header.format in ("JPEG", "MPO") and max(header.width, header.height) >= 2 * side_px

    def _open(self, path: Path, side_px: int | None) -> Image:
        from PIL import ImageOps

        from bettersynth.media.open import open_image

        try:
            image = open_image(path, at_least_px=side_px)
        except DataError:
            if self.on_truncated != "load" or not path.is_file():
                raise
            with tolerate_truncation(True):
                image = open_image(path, at_least_px=side_px)
            self._note_truncated(str(path))
        ImageOps.exif_transpose(image, in_place=True)
        return image

    def _note_truncated(self, path: str) -> None:
        """Count a picture that is cut short, once per group of rows, whoever meets it first."""
        if path not in self._truncated:
            self._truncated.add(path)
            self.flags["truncated picture loaded"] += 1

    def check_file(self, file: int, path: str) -> None:
        """Refuse a missing picture, and one without its end marker when truncated pictures are refused.

        Raises:
            DataError: with the path.
        """
        where = self._where(file, path)
        try:
            is_file = stat.S_ISREG(os.stat(where).st_mode)
        except (OSError, ValueError):  # a name with a zero byte
            is_file = False
        if not is_file:
            raise DataError(t("image not found"), where=str(Path(where)))
        if self.on_truncated == "quarantine" and looks_truncated(Path(where)):
            raise DataError(t("truncated or damaged image"), where=str(Path(where)))

    def forget_images(self) -> None:
        """Drop decoded pictures; called by the engine between groups of rows."""
        self._images.clear()
        self._headers.clear()
        self._places.clear()
        self._placed = None
        self._truncated.clear()

    def scorer(self, model: str) -> ImageTextScorer:
        """The image-text scorer in a folder (or ``fake``), loaded once per process."""
        found: ImageTextScorer = self._model("scorer", model)
        return found

    def captioner(self, model: str) -> Captioner:
        """The captioner in a folder (or ``fake``), loaded once per process."""
        found: Captioner = self._model("captioner", model)
        return found

    def classifier(self, model: str) -> ImageClassifier:
        """The picture classifier in a folder (or ``fake``), loaded once per process."""
        found: ImageClassifier = self._model("classifier", model)
        return found

    def matcher(self, model: str) -> ImageTextMatcher:
        """The image-text matcher in a folder (or ``fake``), loaded once per process."""
        found: ImageTextMatcher = self._model("matcher", model)
        return found

    def grounder(self, model: str) -> PhraseGrounder:
        """The phrase grounder in a folder (or ``fake``), loaded once per process."""
        found: PhraseGrounder = self._model("grounder", model)
        return found

    def segmenter(self, model: str) -> Segmenter:
        """The foreground segmenter in a folder (or ``fake``), loaded once per process."""
        found: Segmenter = self._model("segmenter", model)
        return found

    def faces(self, model: str) -> FaceDetector:
        """The face detector of a cascade file (or ``fake``, or empty for OpenCV's own), loaded once per process."""
        found: FaceDetector = self._model("faces", model)
        return found

    def lines(self, model: str) -> LineDetector:
        """The detector of straight lines (``fake``, or empty for OpenCV's), loaded once per process."""
        found: LineDetector = self._model("lines", model)
        return found

    def converter(self, model: str) -> TextConverter:
        """The converter of Chinese characters (``fake``, a mode of OpenCC's, or a file), loaded once per process."""
        found: TextConverter = self._model("converter", model)
        return found

    def _model(self, kind: str, model: str) -> Any:
        if (kind, model) not in self._models:
            from bettersynth.infer.loader import LOADERS

            self._models[kind, model] = LOADERS[kind](model, device=self.device)
        return self._models[kind, model]

    def keys(self, batch: Batch) -> list[RowKey]:
        """The hidden keys of a batch."""
        return row_keys(batch)
