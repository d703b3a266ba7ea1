"""Make a model ready for a stage: what is frozen, in which precision."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from bettersynth.config.train import StageConfig
from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.models.family import ModelFamily, Processor
from bettersynth.train import lora

COMPUTE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepare_model(config: StageConfig, family: ModelFamily, model: nn.Module) -> None:
    """Freeze a model and fit it to the settings; nothing is moved or cast, see :func:`settle`.

    Raises:
        ConfigError: the family trains nothing in this stage, or cannot do what the config asks for.
    """
    for method, value in (("set_stochastic_depth", config.stochastic_depth), ("set_activation", config.hidden_act)):
        if value:
            change = getattr(family, method, None)
            if change is None:
                where = "stochastic_depth" if method == "set_stochastic_depth" else "hidden_act"
                raise ConfigError(t("the family '{family}' cannot do this", family=family.name), where=where)
            change(model, value)
    freeze = getattr(family, "freeze", None) if config.unified is not None else None
    if freeze is not None:
        freeze(model, config.unified.freeze)  # type: ignore[union-attr]
    chosen = family.trainable(model, config.stage)
    names = {name for name, _ in chosen} if config.lora is None else lora.attach(config, family, model)
    if freeze is not None:
        names -= freeze(model, config.unified.freeze)  # type: ignore[union-attr]
    if not names:
        frozen = config.unified.freeze if config.unified is not None else ()
        raise ConfigError(
            t("nothing is trainable in stage {stage}", stage=config.stage),
            where="unified.freeze" if frozen else family.name,
            got=", ".join(frozen) or None,
            hint=t("leave out a part that is to learn") if frozen else None,
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    if config.gradient_checkpointing:
        enable = getattr(family, "enable_gradient_checkpointing", None)
        if enable is None:
            raise ConfigError(t("this family has no gradient checkpointing"), where="gradient_checkpointing")
        if config.gradient_checkpointing is True:
            enable(model)
        else:
            enable(model, config.gradient_checkpointing)
    if config.unified is not None and config.unified.compile:
        family.compile(model)  # type: ignore[attr-defined]


def settle(config: StageConfig, parameters: Iterable[nn.Parameter], device: torch.device) -> None:
    """Give parameters of a prepared model their training's memory on the device: float32 what is trained, the rest in
    the precision of the forward pass.

    Each is copied by itself, also when nothing is converted: before, it may be mapped from a file that all processes
    share, and that memory is free when its last tensor is gone.
    """
    for parameter in parameters:
        dtype = torch.float32 if parameter.requires_grad else COMPUTE_DTYPES[config.precision]
        given = parameter.data
        moved = given.to(device)  # as few bytes as are stored cross the bus
        parameter.data = moved.to(dtype, copy=moved is given)


def build_processor(config: StageConfig, family: ModelFamily, model: nn.Module) -> Processor:
    """The processor of a stage's model and image folder."""
    build = getattr(family, "training_processor", None)
    if build is not None:
        processor: Processor = build(model, config)
        return processor
    return family.processor(
        model, image_aspect_ratio=config.image_aspect_ratio, max_length=config.max_length, image_root=config.images
    )


def prepare_processor(config: StageConfig, family: ModelFamily, model: nn.Module, processor: Processor) -> Processor:
    """The processor that makes batches as the config wants them.

    Raises:
        ConfigError: the family cannot pack.
    """
    if config.unified is not None and config.sharding == "off":
        from bettersynth.train.unified_store import with_frozen_parts

        return with_frozen_parts(config, model, processor)  # type: ignore[arg-type]
    if not config.packing:
        return processor
    enable = getattr(family, "enable_packing", None)
    if enable is None:
        raise ConfigError(t("this family has no packing"), where="packing")
    packed: Processor = enable(model, processor)
    return packed
