"""A DeepSpeed configuration file (ZeRO stages, offloading) carried out by the one trainer. Imports no torch.

The file's words are translated into ``sharding`` and ``offload_optimizer``; DeepSpeed itself is not run, for reasons in
docs/training.md. ``"auto"`` takes what the stage's settings say. A value that says something else than they do is
refused, all of them together; what only tunes DeepSpeed's own exchange of tensors is named once as idle.
Source: DeepSpeed's configuration reference (keys, defaults); ZeRO stages: Rajbhandari et al. 2020.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.config.load import raise_all
from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError, ConfigError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean

_STAGES = {0: "off", 1: "grad_op", 2: "grad_op", 3: "full"}
_SCHEDULERS = {"WarmupLR": "constant", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}
_IDLE = frozenset(
    {
        *(
            "steps_per_print",
            "wall_clock_breakdown",
            "dump_state",
            "memory_breakdown",
            "flops_profiler",
            "comms_logger",
        ),
        *("zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "activation_checkpointing", "aio"),
        *("communication_data_type", "disable_allgather", "tensorboard", "wandb", "csv_monitor", "checkpoint"),
        *("dataloader_drop_last", "torch_autocast", "seq_parallel_communication_data_type"),
    }
)
_IDLE_ZERO = frozenset(
    {
        *("overlap_comm", "contiguous_gradients", "reduce_bucket_size", "reduce_scatter", "allgather_partitions"),
        *(
            "allgather_bucket_size",
            "round_robin_gradients",
            "sub_group_size",
            "ignore_unused_parameters",
            "load_from_fp32_weights",
        ),
        *("stage3_prefetch_bucket_size", "stage3_param_persistence_threshold", "stage3_max_live_parameters"),
        *(
            "stage3_max_reuse_distance",
            "stage3_gather_16bit_weights_on_model_save",
            "stage3_module_granularity_threshold",
        ),
        *("stage3_model_persistence_threshold", "stage3_use_all_reduce_for_fetch_params", "elastic_checkpoint"),
        *("stage3_gather_fp16_weights_on_model_save", "use_multi_rank_bucket_allreduce", "override_module_apply"),
        *("log_trace_cache_warnings", "legacy_stage1", "memory_efficient_linear", "leaf_module"),
    }
)
_OWN = ("train_micro_batch_size_per_gpu", "train_batch_size", "gradient_accumulation_steps", "gradient_clipping")
_SECTIONS = ("fp16", "bf16", "optimizer", "scheduler", "zero_optimization")
_ZERO = ("stage", "offload_optimizer", "offload_param")
_SCALING = ("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale", "auto_cast")


@dataclass(frozen=True)
class Zero:
    """What a file asks for.

    Attributes:
        sharding, offload_optimizer: the settings it stands for.
        notes: what was left aside, in words.
    """

    sharding: str
    offload_optimizer: bool
    notes: tuple[str, ...]


def with_deepspeed(config: StageConfig) -> tuple[StageConfig, tuple[str, ...]]:
    """The stage with its DeepSpeed file carried out, and what there is to say about it.

    Args:
        config: with batch and accumulation filled in (``with_devices``).

    Raises:
        ConfigError, ConfigErrors: the file cannot be read, says something else than the settings do, or asks for
            something that is not carried out here; all at once.
    """
    if config.deepspeed is None:
        return config, ()
    zero = read_zero(config, config.deepspeed)
    asked = {"sharding": zero.sharding, "offload_optimizer": zero.offload_optimizer}
    return config.model_copy(update={**asked, "deepspeed": None}), zero.notes


def read_zero(config: StageConfig, path: Path) -> Zero:
    """Translate a file; see :func:`with_deepspeed`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError(type(data).__name__)
    except FileNotFoundError:
        raise ConfigError(t("not found"), where="deepspeed", got=path) from None
    except (OSError, ValueError) as error:
        raise ConfigError(t("not readable JSON"), where=str(path), got=error) from error
    reader = _Reader(config, str(path))
    zero = reader.read(data)
    raise_all(reader.problems, where=str(path))
    return zero


class _Reader:
    def __init__(self, config: StageConfig, name: str) -> None:
        self.config, self.name = config, name
        self.problems: list[BetterSynthError] = []
        self.idle: list[str] = []
        self.notes: list[str] = []

    def read(self, data: Mapping[str, Any]) -> Zero:
        config = self.config
        own = (config.per_device_batch_size, config.global_batch, config.gradient_accumulation_steps)
        for key, value in zip(_OWN, (*own, config.max_grad_norm), strict=True):
            self._same(key, data.get(key, "auto"), value)
        self._precision(data)
        self._optimizer(_section(data, "optimizer"))
        self._scheduler(_section(data, "scheduler"))
        zero = self._zero(_section(data, "zero_optimization"))
        for key in data:
            if key in _IDLE:
                self.idle.append(key)
            elif key not in (*_OWN, *_SECTIONS):
                self._unknown(key, (*_OWN, *_SECTIONS, *_IDLE))
        if self.idle:
            names = ", ".join(self.idle)
            self.notes.append(t("{file}: nothing to do for {names}", file=self.name, names=names))
        return Zero(*zero, tuple(self.notes))

    def _precision(self, data: Mapping[str, Any]) -> None:
        for name in ("fp16", "bf16"):
            section = _section(data, name)
            self._same(f"{name}.enabled", section.get("enabled", "auto"), self.config.precision == name)
            for key in section:
                if key in _SCALING:
                    self.idle.append(f"{name}.{key}")
                elif key != "enabled":
                    self._unknown(f"{name}.{key}", ("enabled", *_SCALING))

    def _optimizer(self, section: Mapping[str, Any]) -> None:
        config = self.config
        kind = section.get("type", "AdamW")
        if kind not in ("AdamW", "Adam"):
            self._refuse("optimizer.type", kind, "AdamW")
        own = {"lr": config.lr, "betas": list(config.betas), "eps": config.eps, "weight_decay": config.weight_decay}
        own |= {"adam_w_mode": True}
        for key, value in dict(section.get("params") or {}).items():
            if key in own:
                self._same(f"optimizer.params.{key}", value, own[key])
            elif key in ("torch_adam", "fused", "bias_correction"):
                self.idle.append(f"optimizer.params.{key}")
            else:
                self._unknown(f"optimizer.params.{key}", tuple(own))

    def _scheduler(self, section: Mapping[str, Any]) -> None:
        if not section:
            return
        kind = section.get("type")
        if _SCHEDULERS.get(str(kind)) != self.config.scheduler:
            wanted = [name for name, own in _SCHEDULERS.items() if own == self.config.scheduler]
            self._refuse("scheduler.type", kind, f"{wanted[0]} (scheduler: {self.config.scheduler})")
        for key, value in dict(section.get("params") or {}).items():
            own = {"warmup_min_lr": 0.0, "warmup_max_lr": self.config.lr}
            if key in own:
                self._same(f"scheduler.params.{key}", value, own[key])
            elif value != "auto":  # numbers of steps: the settings say shares of them
                self._refuse(f"scheduler.params.{key}", value, '"auto"')

    def _zero(self, section: Mapping[str, Any]) -> tuple[str, bool]:
        stage = section.get("stage", 0)
        if stage not in _STAGES:
            self._refuse("zero_optimization.stage", stage, "0 | 1 | 2 | 3")
            stage = 0
        places = {}
        for name in ("offload_optimizer", "offload_param"):
            place = _section(section, name).get("device", "none") if section.get(name) else "none"
            if place not in ("none", "cpu"):
                self._refuse(f"zero_optimization.{name}.device", place, "none | cpu")
            places[name] = place == "cpu"
        if places["offload_param"] and stage != 3:
            self.notes.append(
                t("{file}: offload_param means something in stage 3 only, and is left out", file=self.name)
            )
            places["offload_param"] = False
        if stage == 1:
            self.notes.append(
                t("{file}: stage 1 is carried out as stage 2, which also splits gradients", file=self.name)
            )
        for key, value in section.items():
            if key in _IDLE_ZERO:
                self.idle.append(key)
            elif key not in _ZERO and value is not False and value is not None:
                self._unknown(f"zero_optimization.{key}", (*_ZERO, *_IDLE_ZERO))
        sharding, is_offloaded = _STAGES[stage], any(places.values())
        given = self.config.model_fields_set
        if "sharding" in given and self.config.sharding != sharding:
            self._refuse("zero_optimization.stage", stage, f"sharding: {self.config.sharding}")
        if self.config.offload_optimizer and not is_offloaded:
            self._refuse("zero_optimization.offload_optimizer", "none", "offload_optimizer: true")
        return sharding, is_offloaded

    def _same(self, key: str, value: Any, own: Any) -> None:
        if value in ("auto", None) or value == own or _listed(value) == _listed(own):
            return
        self._refuse(key, value, f'{json.dumps(own)} | "auto"')

    def _refuse(self, key: str, got: Any, expected: str) -> None:
        message = t("the file says something else than the stage's settings")
        self.problems.append(ConfigError(message, where=key, got=json.dumps(got), expected=expected))

    def _unknown(self, key: str, known: tuple[str, ...]) -> None:
        hint = did_you_mean(key.rpartition(".")[2], known)
        self.problems.append(ConfigError(t("not carried out here"), where=key, hint=hint))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, Mapping) else {}
