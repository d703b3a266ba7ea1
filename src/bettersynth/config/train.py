"""What one training stage does: data, bases, schedule, batch, precision. Unknown keys are refused, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bettersynth.config.load import Document, check, raise_all
from bettersynth.config.unified import UnifiedSettings
from bettersynth.core.budget import check_global_batch
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t

PLACE_KEYS = frozenset({"data", "image_root", "bases", "model_zoo", "init_from", "adapter"})
"""Where inputs lie. Their content is fingerprinted instead, so a moved folder is still the same input."""

MACHINE_KEYS = frozenset(
    {
        *("workers", "prefetch_batches", "pixel_cache_bytes", "feature_cache", "feature_cache_bytes"),
        *("device", "gradient_checkpointing", "packing", "track_memory", "offload_optimizer", "sharding", "deepspeed"),
        *("logging_steps", "save_steps", "save_total_limit", "report_to", "gradient_accumulation_steps"),
        *("alignment_probe", "val_data", "val_samples", "eval_steps"),
    }
)
"""How the work is carried out and logged. They may change between a run and its continuation."""

SWITCHES = frozenset({"lora", "optimizer", "techniques", "unified", "stochastic_depth", "hidden_act"})
"""Features that are off by default. One that is off is left out of a run's identity, so that a run stays the same run
when a feature is added to this package; a locked track refuses to switch one on."""


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-3 (no dot) as a string, which is the way most people write a learning rate.
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _off(value: Any) -> Any:
    # YAML reads a bare off as false.
    return None if value in ("off", False) else value


def _on_off(value: Any) -> Any:
    """YAML reads a bare off as false."""
    return "off" if value is False else value


ORIGINAL = {"loss_normalization": "micro_batch", "stochastic_depth": 0.1, "hidden_act": "gelu"}
"""What ``reproduce: original`` stands for: the original trainer's behaviour where ours is corrected. Always allowed."""


def reproduced(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with ``reproduce`` spelled out; a switch that is given beside it keeps its value."""
    return {**ORIGINAL, **settings} if settings.get("reproduce") == "original" else dict(settings)


Number = Annotated[float, BeforeValidator(_number)]


class Bases(BaseModel):
    """Folders of the models a first training starts from, each in its official layout."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    llm: Path
    """Language model (Hugging Face Gemma)."""
    vision_tower: Path
    """Low-resolution tower (Hugging Face CLIP)."""
    vision_tower_aux: Path
    """High-resolution tower (open_clip ConvNeXt)."""


class Lora(BaseModel):
    """Low-rank adaptation: the language model stays frozen, small matrices beside its linear layers are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rank: int = Field(64, ge=1)
    """Width of the added matrices."""
    alpha: Number = Field(16, gt=0)
    """The addition counts alpha / rank times."""
    dropout: Number = Field(0.0, ge=0, lt=1)
    """Share of the inputs of the added matrices that is left out in a step."""
    quantize: Annotated[Literal["nf4", "int8"] | None, BeforeValidator(_off)] = None
    """Keep the frozen layers in 4 bits (nf4, blocks of 64) or 8 (int8, by row), as QLoRA does; or off."""
    merge: bool = True
    """true: the result is a full checkpoint with the addition in its weights, and the adapter in lora/. false: the
    adapter alone, small; the command `merge` makes the full checkpoint later."""


def _lora(value: Any) -> Any:
    return {} if value is True else _off(value)


class StageConfig(BaseModel):
    """One stage of training. Exactly one of ``bases``, ``model_zoo`` and ``init_from`` says what it starts from."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    # --- what is trained on what
    family: str = "mgm"
    """Model family: a folder of bettersynth.models."""
    stage: int = Field(ge=1, le=2)
    """1 aligns projector and miner, 2 tunes the language model with them."""
    data: Path
    """LLaVA-format JSON: a list of items with id, image and conversations."""
    image_root: Path | None = None
    """Folder the image paths are relative to; the data file's folder when not given."""
    bases: Bases | None = None
    """The three base folders, when they do not lie in one model zoo."""
    model_zoo: Path | None = None
    """Folder holding LLM/ and OpenAI/ as in the challenge kit."""
    init_from: Path | None = None
    """Checkpoint folder to continue from instead of the bases."""
    adapter: Path | None = None
    """Projector and miner of stage 1 (folder or mm_projector file), loaded on top."""

    # --- optimisation
    lr: Number = Field(gt=0)
    """Peak learning rate."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up; cosine and linear end at 0."""
    warmup_ratio: Number = Field(0.03, ge=0, le=1)
    """Share of all steps, rounded up, in which the rate rises from 0 (the first step has rate 0)."""
    weight_decay: Number = Field(0.0, ge=0)
    """AdamW decay of matrices; vectors (norms, biases) are never decayed."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW momenta."""
    eps: Number = Field(1e-8, gt=0)
    """AdamW epsilon."""
    max_grad_norm: Number = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 switches clipping off."""
    loss_normalization: Literal["tokens", "micro_batch"] = "tokens"
    """tokens: mean over all target tokens of the step. micro_batch: plain mean of the micro-batches' means, as the
    original trainer does, which gives short answers more weight."""

    reproduce: Literal["original"] | None = None
    """original: do as the original trainer does where we do not: loss_normalization: micro_batch, stochastic_depth: 0.1
    and hidden_act: gelu."""
    stochastic_depth: Number = Field(0.0, ge=0, lt=1)
    """Leave out residual blocks of the frozen high-resolution tower at random while training, at a rate that rises over
    its blocks from 0 to this one. The original does so at 0.1, by leaving the frozen tower in training mode; it blurs
    what the projector learns from, and features cannot be cached."""
    hidden_act: Literal["gelu", "gelu_pytorch_tanh"] | None = None
    """Activation of Gemma's layers: gelu is the exact form, which the original was trained with; what the base model's
    config says when not given. Current transformers read that as the tanh form."""

    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """adamw_8bit keeps AdamW's two averages in 8 bits each: 2 bytes a trained parameter instead of 8."""
    lora: Annotated[Lora | None, BeforeValidator(_lora)] = None
    """Stage 2: train low-rank additions to the language model instead of the whole (true, or a mapping, or off)."""

    techniques: dict[str, dict[str, Any]] = {}
    """Training techniques by name, each with its settings; see docs/techniques.md. None on a locked track."""

    unified: UnifiedSettings | None = None
    """Families that learn texts and pictures jointly: loss weights, dropout, sizes, frozen parts, average."""

    # --- amount
    per_device_batch_size: int = Field(ge=1)
    """Samples of one forward pass on one device."""
    gradient_accumulation_steps: int | None = Field(None, ge=1)
    """Forward passes per step and device; derived from global_batch when not given."""
    global_batch: int | None = Field(None, ge=1)
    """Samples per step over all devices; checked against batch x accumulation x devices."""
    epochs: int = Field(1, ge=1)
    """Passes over the data."""
    samples_seen: int | None = Field(None, ge=1)
    """Exact number of training samples to show instead of whole epochs; data is repeated or cut to reach it."""
    max_samples: int | None = Field(None, ge=1)
    """Rows beyond this many are sampled away, counted and announced."""
    sample_seed: int = 1024
    """Seed of that sampling; 1024 is the challenge kit's."""
    seed: int = 1024
    """Seed of initial weights, sample order and dropout."""

    # --- samples
    max_length: int = Field(2048, ge=8)
    """Longest sequence in tokens, image tokens included."""
    image_size_aux: int = Field(768, ge=32)
    """Side in pixels of the picture given to the high-resolution tower; a checkpoint continued from keeps its own."""
    image_aspect_ratio: Literal["square", "pad"] = "square"
    """square: centre crop (original stage 1). pad: letterbox (original stage 2 and evaluation)."""
    group_by_modality_length: bool = False
    """Steps are made of samples of one kind (with or without image) and similar length."""
    on_bad_sample: Literal["quarantine", "stop"] = "quarantine"
    """quarantine: count, name and leave out. stop: end with an error at the first one."""
    max_bad_ratio: Number = Field(0.05, ge=0, le=1)
    """More bad samples than this share of all rows stop the run."""

    # --- numerics and machine
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass; trained weights and optimiser are always fp32."""
    tf32: bool = False
    """TensorFloat-32 matrix products on CUDA."""
    gradient_checkpointing: bool | Annotated[int, Field(ge=1)] = False
    """Recompute layer activations in the backward pass: less memory, more time, same result. true: of all layers of the
    language model; a number: of its first so many layers, as few as the memory asks for."""
    sharding: Annotated[Literal["off", "grad_op", "full"], BeforeValidator(_on_off)] = "off"
    """With several processes, split trained weights, gradients and optimiser states among them (FSDP2). full: a layer's
    weights are whole only while it is at work, as in ZeRO-3. grad_op: from its forward to its backward pass, as in
    ZeRO-2, which exchanges less. Neither changes the arithmetic beyond rounding; in one process it has no effect."""
    deepspeed: Path | None = None
    """DeepSpeed's JSON file: its ZeRO stage is carried out as `sharding` (1 and 2: grad_op, 3: full), its offloading as
    `offload_optimizer`; its other values must be "auto" or what the settings here say."""
    offload_optimizer: bool = False
    """Keep float32 weights, their gradients and the optimiser's states in the host's memory (16 bytes a trained
    parameter) and update there; the device holds the weights in `precision`. With fp32 not a bit of the result
    changes."""
    packing: bool = False
    """Put the samples of a micro-batch into one row and compute no padding. No sample sees another: the same loss and
    gradients up to rounding, as with another per_device_batch_size."""
    track_memory: bool = False
    """Count the bytes of all living tensors while training on a CPU and record the most, as the plan foretells them.
    Takes time. On CUDA the allocator's own count is always recorded."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    workers: int = Field(1, ge=0)
    """Threads that open pictures ahead of the training step; 0 opens them in line."""
    prefetch_batches: int = Field(4, ge=1)
    """Micro-batches prepared ahead per worker."""
    pixel_cache_bytes: int = Field(256 * 2**20, ge=0)
    """Memory for decoded pictures kept between passes."""
    feature_cache: Annotated[Path | None, BeforeValidator(_off)] = None
    """Folder where outputs of the frozen towers are kept for all runs that may share them (stages, epochs, seeds,
    strategies), or off. It changes no bit of a result: a machine that cannot promise that does not use it."""
    feature_cache_bytes: int = Field(4 * 2**30, ge=0)
    """Nothing more is written to the feature cache when it holds this much."""

    # --- records
    logging_steps: int = Field(1, ge=1)
    """Steps between two log lines."""
    save_steps: int = Field(100, ge=1)
    """Steps between two resumable checkpoints."""
    save_total_limit: int = Field(1, ge=1)
    """Resumable checkpoints kept."""
    val_data: Path | None = None
    """Held-out records in the data's format: their loss is logged (validation.jsonl, trackers), never learnt from, and
    no part of a track's budget. A joint training keeps the checkpoint with the lowest in best/."""
    val_samples: int = Field(200, ge=1)
    """At most so many of them are used, drawn from all."""
    eval_steps: int | None = Field(None, ge=1)
    """Steps between two validations; save_steps when not given."""
    alignment_probe: Annotated[Literal["off", "warn", "stop"], BeforeValidator(_on_off)] = "off"
    """Stage 1: at 10, 20 and 50 % of the steps, see on samples not yet shown whether captions are likelier with their
    own pictures than with others. warn tells; stop ends a run that ignores its pictures at half time. It costs about
    one percent of the time and changes no weight."""
    report_to: tuple[Literal["jsonl", "tensorboard", "wandb"], ...] = ("jsonl",)
    """Where log lines go besides the challenge kit's text logs; jsonl is always written."""

    @model_validator(mode="after")
    def _check_together(self) -> StageConfig:
        starts = [key for key in ("bases", "model_zoo", "init_from") if getattr(self, key) is not None]
        problems = []
        if self.init_from is None and len(starts) != 1:
            problems.append(t("give exactly one of bases, model_zoo and init_from"))
        if self.samples_seen is not None and self.epochs != 1:
            problems.append(t("samples_seen and epochs cannot be given together"))
        if self.val_data is not None and self.val_data == self.data:
            problems.append(t("val_data is the training data: its loss would say nothing new"))
        if self.lora is not None and self.stage == 1:
            problems.append(t("stage 1 trains no language model, so lora has nothing to work on"))
        if self.stochastic_depth and self.feature_cache is not None:
            problems.append(
                t("with stochastic_depth a picture's features differ each time, so feature_cache must be off")
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            problems.append(t("betas must lie in [0, 1)"))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def images(self) -> Path:
        """The folder that image paths are relative to."""
        if self.image_root is not None:
            return self.image_root
        return self.data if self.data.is_dir() else self.data.parent

    def with_devices(self, devices: int) -> StageConfig:
        """The same stage with accumulation and global batch filled in for a number of devices.

        Raises:
            ConfigError: batch x accumulation x devices is not the wanted global batch.
        """
        per_step = self.per_device_batch_size * devices
        accumulation = self.gradient_accumulation_steps
        if accumulation is None:
            accumulation = max(1, (self.global_batch or per_step) // per_step)
        wanted = self.global_batch or per_step * accumulation
        check_global_batch(self.per_device_batch_size, accumulation, devices, wanted)
        return self.model_copy(update={"gradient_accumulation_steps": accumulation, "global_batch": wanted})

    def result_settings(self) -> dict[str, Any]:
        """The settings that decide the trained weights, without places and machine settings.

        With ``tokens`` normalisation the split of a step into micro-batches is a machine setting too.
        """
        hidden = PLACE_KEYS | MACHINE_KEYS | {"reproduce"}
        if self.loss_normalization == "tokens":
            hidden |= {"per_device_batch_size"}
        hidden |= {key for key in SWITCHES if getattr(self, key) == type(self).model_fields[key].default}
        settings = {key: value for key, value in self.model_dump(mode="json").items() if key not in hidden}
        return settings if self.unified is None else {**settings, "unified": self.unified.result_settings()}

    def result_digest(self) -> str:
        """Digest of :meth:`result_settings`."""
        return digest_json(self.result_settings())


def stage_config(settings: Mapping[str, Any] | Document, *, name: str = "<settings>") -> StageConfig:
    """Validate settings into a StageConfig.

    Raises:
        ConfigError, ConfigErrors: every unknown key, wrong value and impossible combination, in one error.
    """
    document = settings if isinstance(settings, Document) else Document(name, _plain(settings))
    config, problems = check(StageConfig, reproduced(document.data), document)
    raise_all(problems, where=document.name)
    return cast(StageConfig, config)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a YAML document would hold them: paths as text, models as mappings."""
    plain: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        plain[key] = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    return plain
