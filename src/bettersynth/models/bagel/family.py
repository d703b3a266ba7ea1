"""The BAGEL family: what the trainer calls."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.models.bagel import convert
from bettersynth.models.bagel.model import BagelModel, JointLoss
from bettersynth.models.family import BaseFolders, Batch, LossOutput, Processor


class BagelFamily:
    """See :class:`bettersynth.models.family.ModelFamily`. There is one kind of checkpoint: the official folder."""

    name = "bagel"

    def load_base(self, spec: BaseFolders, *, dtype: torch.dtype, seed: int) -> nn.Module:
        """Refused: BAGEL is not put together from three bases."""
        raise self._refusal()

    def load_checkpoint(self, folder: Path, *, dtype: torch.dtype, model_zoo: Path | None = None) -> BagelModel:
        """The official folder."""
        return convert.load_checkpoint(folder, dtype=dtype)

    def load_adapter(self, model: nn.Module, path: Path) -> list[str]:
        """Refused: there is no first stage whose result could be loaded."""
        raise self._refusal()

    def processor(
        self, model_or_folder: nn.Module | Path, *, image_aspect_ratio: str, max_length: int, image_root: Path
    ) -> Processor:
        """Refused: BAGEL's records are packed, not padded; see :mod:`bettersynth.models.bagel.packing`."""
        raise self._refusal()

    def losses(self, model: nn.Module, batch: Batch) -> JointLoss:
        """Both losses of a packed batch. Calls the module, so that wrappers around it work."""
        output: JointLoss = model(batch)
        return output

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """The sum of both mean losses, counted as one target."""
        total = self.losses(model, batch).total()
        return LossOutput(total, torch.ones((), dtype=torch.int64, device=total.device))

    def trainable(self, model: nn.Module, stage: int) -> list[tuple[str, nn.Parameter]]:
        """Everything but the autoencoder, in every stage; freeze parts by ``requires_grad_`` beforehand."""
        return [(name, parameter) for name, parameter in unwrap(model).named_parameters() if parameter.requires_grad]

    def enable_gradient_checkpointing(self, model: nn.Module) -> None:
        """Trade time for memory in the decoder."""
        unwrap(model).decoder.is_checkpointing = True

    def save_adapter(self, model: nn.Module, folder: Path) -> None:
        """Refused, as there is no first stage."""
        raise self._refusal()

    def save_checkpoint(self, model: nn.Module, folder: Path, *, dtype: torch.dtype) -> None:
        """The official folder."""
        convert.save_checkpoint(unwrap(model), folder, dtype=dtype)

    def _refusal(self) -> ConfigError:
        return ConfigError(
            t("BAGEL is trained from one whole folder, in one stage"),
            expected=t("a folder with llm_config.json, vit_config.json, ema.safetensors and ae.safetensors"),
        )


def unwrap(model: nn.Module) -> BagelModel:
    """The model inside of a data-parallel wrapper.

    Raises:
        ConfigError: it is another family's.
    """
    inner = getattr(model, "module", model)
    if not isinstance(inner, BagelModel):
        raise ConfigError(t("not a BAGEL model"), got=type(inner).__name__)
    return inner


FAMILY = BagelFamily()
