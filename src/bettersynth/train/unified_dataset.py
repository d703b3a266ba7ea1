"""The public data set of unified generation: checked, tokenised records, and packed batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bettersynth.config.train import stage_config
from bettersynth.config.unified import UnifiedSettings
from bettersynth.models.bagel.config import load_config
from bettersynth.models.bagel.convert import load_autoencoder
from bettersynth.models.bagel.family import training_rules
from bettersynth.models.bagel.files import AE_FILE
from bettersynth.models.bagel.packing import Dropout
from bettersynth.models.bagel.processor import UnifiedProcessor
from bettersynth.models.bagel.records import RecordEncoder, UnifiedExample
from bettersynth.models.bagel.tokens import BagelTokenizer
from bettersynth.models.family import Batch
from bettersynth.train.examples import RejectedRow
from bettersynth.train.mixture import pack_batches
from bettersynth.train.unified_data import Balance, UnifiedSet, prepare_unified


class UnifiedGenerationDataset:
    """Records of conversation, text-to-image, editing and interleaved data as training samples.

    ``dataset[i]`` is a :class:`UnifiedExample`; :meth:`batch` packs any samples into one sequence. No weights are
    loaded but those of the autoencoder, and these only when the first picture is to be drawn.

    Args:
        data_path: ``.json``, ``.jsonl`` (also ``.gz``, ``.zst``), ``.parquet``, WebDataset ``.tar``, a folder of
            shards of the last two, or a mixture (``.yaml``).
        model_path: BAGEL folder; its sizes and tokenizer are used.
        image_root: folder of the pictures that the data does not hold; that of the data by default.
        max_sequence_length: longer records are cut at a segment's border, and counted.
        settings: sizes, dropout and the like; defaults as in training.
        max_bad_ratio: more bad records than this share are an error that lists them.
        seed: of dropout, times and noise.

    Raises:
        DataError: unreadable data or model, no usable record, or too many bad ones.
    """

    def __init__(
        self,
        data_path: Path | str,
        model_path: Path | str,
        *,
        image_root: Path | str | None = None,
        max_sequence_length: int = 10240,
        settings: UnifiedSettings | None = None,
        max_bad_ratio: float = 0.05,
        seed: int = 1024,
    ) -> None:
        folder, settings = Path(model_path), settings or UnifiedSettings()
        tokenizer = BagelTokenizer(folder)
        config = load_config(folder, special=tokenizer.special)
        own = stage_config(
            {
                "family": "bagel",
                "stage": 2,
                "data": str(data_path),
                "init_from": str(folder),
                "lr": 1.0,
                "per_device_batch_size": 1,
                "max_length": max_sequence_length,
                "max_bad_ratio": max_bad_ratio,
                "seed": seed,
                "unified": settings.model_dump(mode="json"),
                **({"image_root": str(image_root)} if image_root is not None else {}),
            }
        )
        rules = training_rules(config, settings)
        encoder = RecordEncoder(config, tokenizer, own.images, *rules, max_sequence_length, settings.learn_next_kind)
        self._folder = folder
        self._processor = UnifiedProcessor(
            encoder,
            None,
            seed,
            Dropout(settings.dropout_text, settings.dropout_vit, settings.dropout_vae),
            settings.sample_posterior,
            settings.text_loss_reweighting,
        )
        self.data: UnifiedSet = prepare_unified(own, self._processor)

    def __len__(self) -> int:
        return len(self.data.examples)

    def __getitem__(self, index: int) -> UnifiedExample:
        example: Any = self.data.examples[index]
        return example

    def __iter__(self) -> Iterator[UnifiedExample]:
        return (self[index] for index in range(len(self)))

    @property
    def rejected(self) -> tuple[RejectedRow, ...]:
        """Records that are not used, with row, reason and detail; ``rows == len + rejected + sampled out``."""
        return self.data.rejected

    @property
    def notes(self) -> tuple[str, ...]:
        """What was counted: rows left out, samples cut, balance of texts and pictures, warnings."""
        return self.data.notes

    def balance(self) -> Balance:
        """Texts and pictures in samples and tokens."""
        return self.data.balance()

    def packs(self, max_tokens: int, indices: Sequence[int] | None = None) -> list[list[int]]:
        """Samples in packs of at most ``max_tokens``; none is lost, and no kind of sample is required."""
        chosen = range(len(self)) if indices is None else indices
        return pack_batches([list(chosen)], self.data.examples.num_tokens, max_tokens)

    def batch(self, indices: Sequence[int], step: int = 0) -> Batch:
        """One packed sequence of these samples as the model takes it.

        Raises:
            DataError: a picture is damaged.
        """
        if self._processor.autoencoder is None and (self._folder / AE_FILE).is_file():
            from dataclasses import replace

            autoencoder = load_autoencoder(self._folder, self._processor.config)
            self._processor = replace(self._processor, autoencoder=autoencoder)
        examples = [self[index] for index in indices]
        pixels = [self._processor.load_pixels(example) for example in examples]
        return self._processor.collate_step(step, indices, examples, pixels)
