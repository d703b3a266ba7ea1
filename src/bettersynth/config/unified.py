"""What joint training of texts and pictures needs beyond a plain stage: weights, sizes, dropout, frozen parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bettersynth.core.lang import t

PARTS = ("llm", "und", "gen", "embeddings", "vit", "connector", "time_embedder", "vae")
"""Parts that can be frozen; the autoencoder always is."""

UNIFIED_PLACES = frozenset({"sample_prompts"})
UNIFIED_MACHINE = frozenset(
    {
        *("ema_device", "attention", "compile", "pack_tokens"),
        *("state_dict_file", "wandb_project", "wandb_run_name", "sample_steps", "sample_timesteps", "sample_size"),
    }
)
"""Keys that do not decide the trained weights beyond rounding."""


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Number = Annotated[float, BeforeValidator(_number)]


class UnifiedSettings(BaseModel):
    """The `unified:` section of a stage of the bagel family."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # --- loss
    text_loss_weight: Number = Field(1.0, ge=0)
    """Weight of the cross-entropy: its sum over a step's text targets of all devices, divided by their number."""
    image_loss_weight: Number = Field(1.0, ge=0)
    """Weight of the squared error of the velocity: its sum over a step's latent tokens, divided by their number."""
    text_loss_reweighting: bool = False
    """Each text counts 1 / sqrt(length) per token, as the original's option does."""
    timestep_shift: Number | None = Field(None, gt=0)
    """Shift of the training's times towards noise; the model's own (1.0) when not given."""
    learn_next_kind: bool = False
    """Teach closing markers what comes next: a picture (image start), a text (bos) or nothing (eos)."""

    # --- samples
    dropout_text: Number = Field(0.1, ge=0, le=1)
    """Probability with which a text before a drawn picture is left out, so that guidance has something to compare."""
    dropout_vit: Number = Field(0.3, ge=0, le=1)
    """The same for a given picture as seen by the vision encoder."""
    dropout_vae: Number = Field(0.3, ge=0, le=1)
    """The same for a given picture as latents."""
    vae_image_size: tuple[int, int] | None = None
    """Bounds in pixels of the longer and of the shorter side of pictures as latents; what the model's table of
    positions allows (1024 and 512) when not given."""
    vit_image_size: tuple[int, int] | None = None
    """The same for pictures to be understood (980 and 224)."""
    max_pixels: int = Field(14 * 14 * 9 * 1024, ge=1)
    """Bound of a picture's area, shared by the pictures of a record."""
    sample_posterior: bool = True
    """Latents are drawn from the autoencoder's distribution; false takes its mean."""
    pack_tokens: int | None = Field(None, ge=8)
    """Longest packed sequence: a step's samples are put together up to this length. When not given, a forward pass
    takes per_device_batch_size samples."""
    min_share: Number = Field(0.1, ge=0, le=0.5)
    """Texts or pictures that make less than this share of the learnt samples give a warning."""

    # --- model
    freeze: tuple[Literal["llm", "und", "gen", "embeddings", "vit", "connector", "time_embedder", "vae"], ...] = ()
    """Parts that are not trained; und also detaches the understanding tokens, so that only drawing is learnt."""
    attention: Literal["sdpa", "flex"] = "sdpa"
    """Kernel of the packed attention."""
    compile: bool = False
    """Compile the decoder's layers (torch.compile)."""
    ema_decay: Number = Field(0.0, ge=0, lt=1)
    """Decay of the moving average of the weights; 0 switches it off."""
    ema_device: Literal["cpu", "model"] = "cpu"
    """Where the average is kept."""

    # --- records
    sample_prompts: Path | None = None
    """Prompts, one a line, that are drawn while training: a grid of pictures in samples/, and in the trackers."""
    sample_steps: int | None = Field(None, ge=1)
    """Steps between two grids; eval_steps, else save_steps when not given."""
    sample_timesteps: int = Field(25, ge=2)
    """Points in time of a drawn picture."""
    sample_size: tuple[int, int] | None = None
    """Width and height in pixels; the longest side that pictures are trained at when not given."""
    state_dict_file: bool = False
    """Write trained_model.pt (a plain state dict) beside the result, too."""
    wandb_project: str | None = None
    """Project of the W&B run, where report_to names wandb."""
    wandb_run_name: str | None = None
    """Its name."""

    @model_validator(mode="after")
    def _check_together(self) -> UnifiedSettings:
        for key in ("vae_image_size", "vit_image_size"):
            longer, shorter = getattr(self, key) or (1, 1)
            if not 0 < shorter <= longer:
                raise ValueError(t("{key} must be [longer, shorter] with 0 < shorter <= longer", key=key))
        if self.text_loss_weight == self.image_loss_weight == 0:
            raise ValueError(t("both loss weights are 0: nothing would be learnt"))
        return self

    def result_settings(self) -> dict[str, Any]:
        """The settings that decide the trained weights."""
        hidden = UNIFIED_PLACES | UNIFIED_MACHINE
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in hidden}
