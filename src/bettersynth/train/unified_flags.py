"""The training guide's flags and the settings they stand for: one table for the script, the class and the documents.

Imports no torch, so that a wrong flag or path is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bettersynth.config.train import StageConfig, stage_config
from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors, DataError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean
from bettersynth.models.bagel.files import check_folder


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its name without dashes, the setting it stands for, its kind, default and meaning.

    ``kind`` is ``path``, ``int``, ``float``, ``text``, ``switch``, ``list``, or choices joined by ``|``.
    """

    name: str
    key: str
    kind: str
    default: Any
    help: str


FLAGS = (
    Flag("model_path", "init_from", "path", None, "folder of the model to start from"),
    Flag(
        "train_data_path",
        "data",
        "path",
        None,
        "records (.json, .jsonl, .parquet, .tar, a folder) or a mixture (.yaml)",
    ),
    Flag("val_data_path", "val_data", "path", None, "validation records; the best checkpoint is kept in best/"),
    Flag("image_root", "image_root", "path", None, "folder of the pictures (default: that of the data file)"),
    Flag("output_dir", "out", "path", None, "folder of the result"),
    Flag("batch_size", "per_device_batch_size", "int", 1, "samples of one forward pass"),
    Flag("gradient_accumulation_steps", "gradient_accumulation_steps", "int", 8, "forward passes per step and device"),
    Flag("num_epochs", "epochs", "int", 3, "passes over the data"),
    Flag("learning_rate", "lr", "float", 1e-5, "peak learning rate"),
    Flag("lr_scheduler_type", "scheduler", "linear|cosine|constant", "cosine", "shape of the learning rate"),
    Flag("warmup_ratio", "warmup_ratio", "float", 0.03, "share of the steps in which the rate rises"),
    Flag("weight_decay", "weight_decay", "float", 0.0, "AdamW decay of matrices"),
    Flag("max_grad_norm", "max_grad_norm", "float", 1.0, "gradients are scaled down to this norm"),
    Flag("text_loss_weight", "unified.text_loss_weight", "float", 1.0, "weight of the text loss"),
    Flag("image_loss_weight", "unified.image_loss_weight", "float", 1.0, "weight of the image loss"),
    Flag("max_sequence_length", "max_length", "int", 10240, "longer samples are cut at a segment's border, counted"),
    Flag("pack_tokens", "unified.pack_tokens", "int", None, "put a step's samples together up to this many tokens"),
    Flag("fp16", "precision", "switch", False, "compute in float16, with a loss scaler"),
    Flag("bf16", "precision", "switch", False, "compute in bfloat16"),
    Flag("gradient_checkpointing", "gradient_checkpointing", "switch", False, "less memory, more time"),
    Flag("compile", "unified.compile", "switch", False, "compile the decoder's layers (torch.compile)"),
    Flag("freeze", "unified.freeze", "list", None, "parts not trained: llm und gen embeddings vit connector …"),
    Flag("lora_rank", "lora.rank", "int", None, "train low-rank additions of this width instead of the whole"),
    Flag("load_in", "lora.quantize", "nf4|int8", None, "keep the frozen weights in few bits; needs --lora_rank"),
    Flag("ema_decay", "unified.ema_decay", "float", 0.0, "decay of the average of the weights (0: off)"),
    Flag("learn_next_kind", "unified.learn_next_kind", "switch", False, "teach when a picture comes next"),
    Flag("sharding", "sharding", "off|grad_op|full", None, "split weights among the processes (FSDP2)"),
    Flag("deepspeed", "deepspeed", "path", None, "DeepSpeed JSON whose ZeRO stage and offloading are carried out"),
    Flag("num_workers", "workers", "int", 4, "threads that open pictures ahead"),
    Flag("logging_steps", "logging_steps", "int", 10, "steps between two log lines"),
    Flag("save_steps", "save_steps", "int", 500, "steps between two resumable states"),
    Flag("save_total_limit", "save_total_limit", "int", 2, "resumable states kept"),
    Flag("eval_steps", "eval_steps", "int", None, "steps between two validations (default: save_steps)"),
    Flag("sample_prompts", "unified.sample_prompts", "path", None, "prompts, one a line, drawn while training"),
    Flag("sample_steps", "unified.sample_steps", "int", None, "steps between two grids (default: eval_steps)"),
    Flag("seed", "seed", "int", 1024, "of sample order, dropout, times and noise"),
    Flag("device", "device", "text", "auto", "auto, cpu, cuda or cuda:N"),
    Flag("wandb_project", "unified.wandb_project", "text", None, "log to Weights & Biases (offline unless WANDB_MODE)"),
    Flag("wandb_run_name", "unified.wandb_run_name", "text", None, "name of the W&B run"),
    Flag("resume_from_checkpoint", "resume", "path", None, "state to continue from, e.g. OUTPUT/step_1000"),
)
NEEDED = ("model_path", "train_data_path", "output_dir")
_PATHS = (
    *("model_path", "train_data_path", "val_data_path", "sample_prompts", "image_root", "deepspeed"),
    "resume_from_checkpoint",
)


@dataclass(frozen=True, slots=True)
class UnifiedJob:
    """What flags stand for: the stage, its output folder, and the state it is to continue from."""

    config: StageConfig
    out: Path
    resume: Path | None = None


def build_job(values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> UnifiedJob:
    """Flags by name as a job; flags that are not given have their defaults.

    Args:
        values: names of :data:`FLAGS`.
        overrides: further keys of a stage, ``{"unified.dropout_text": 0.0}``; they win.

    Raises:
        ConfigErrors: every unknown flag, missing or wrong path and wrong value, in one error.
    """
    problems = [*_unknown(values), *_path_problems(values)]
    if values.get("fp16") and values.get("bf16"):
        problems.append(ConfigError(t("give one of --fp16 and --bf16")))
    if values.get("load_in") and not values.get("lora_rank"):
        problems.append(ConfigError(t("weights in few bits cannot be trained themselves"), hint="--lora_rank 64"))
    config, wrong = _config(values, overrides or {})
    problems += wrong
    if config is None or problems:
        raise ConfigErrors(problems)
    resume = values.get("resume_from_checkpoint")
    return UnifiedJob(config, Path(values["output_dir"]), Path(resume) if resume else None)


def _config(
    values: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[StageConfig | None, list[BetterSynthError]]:
    """The settings, or what is wrong with them by the names under which they were given."""
    settings: dict[str, Any] = {
        "family": "bagel",
        "stage": 2,
        "betas": [0.9, 0.95],
        "unified": {"state_dict_file": True},
    }
    for flag in FLAGS:
        value = values.get(flag.name, flag.default)
        if flag.key in ("out", "resume") or flag.key == "precision" or value is None:
            continue
        _put(settings, flag.key, value)
    settings["precision"] = "fp16" if values.get("fp16") else "bf16" if values.get("bf16") else "fp32"
    if values.get("wandb_project") or values.get("wandb_run_name"):
        settings["report_to"] = ["jsonl", "wandb"]
    for key, value in overrides.items():
        _put(settings, key, value)
    for key in ("init_from", "data"):
        settings.setdefault(key, Path("-"))  # that it is missing is told as its flag
    try:
        return stage_config(settings), []
    except ConfigErrors as errors:
        return None, [_named(problem, overrides) for problem in errors.problems]
    except ConfigError as error:
        return None, [_named(error, overrides)]


def _named(problem: BetterSynthError, overrides: Mapping[str, Any]) -> ConfigError:
    """A mistake of a setting as one of the flag, or of the ``--set``, that gave it."""
    key = (problem.where or "").removeprefix("<settings> ")
    names = [flag.name for flag in FLAGS if flag.key == key.partition("[")[0] and flag.key not in overrides]
    where = f"--{names[0]}" if names else f"--set {key}" if key in overrides else problem.where
    return ConfigError(problem.message, where=where, got=problem.got, expected=problem.expected, hint=problem.hint)


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    section, dot, name = key.partition(".")
    if dot:
        settings.setdefault(section, {})[name] = value
    else:
        settings[section] = value


def _unknown(values: Mapping[str, Any]) -> list[BetterSynthError]:
    names = [flag.name for flag in FLAGS]
    return [
        ConfigError(
            t("unknown flag --{name}", name=name), hint=did_you_mean(f"--{name}", [f"--{known}" for known in names])
        )
        for name in values
        if name not in names
    ]


def _path_problems(values: Mapping[str, Any]) -> list[BetterSynthError]:
    problems: list[BetterSynthError] = []
    for name in NEEDED:
        if values.get(name) is None:
            problems.append(ConfigError(t("needed: {flags}", flags=f"--{name}")))
    for name in _PATHS:
        value = values.get(name)
        if value is None:
            continue
        path = Path(value)
        if name == "model_path":
            try:
                check_folder(path, where="--model_path", has_tokenizer=True)
            except DataError as error:
                problems.append(error)
        elif name == "resume_from_checkpoint":
            if find_state(path) is None:
                hint = t("leave it out: the same command continues from the newest state by itself")
                problems.append(DataError(t("no such training state"), where=f"--{name}", got=path, hint=hint))
        elif name == "image_root" and not path.is_dir():
            problems.append(DataError(t("folder not found"), where=f"--{name}", got=path))
        elif name == "deepspeed" and not path.is_file():
            problems.append(DataError(t("not found"), where="--deepspeed", got=path))
        elif name in ("train_data_path", "val_data_path") and path.is_dir():
            continue  # shards; what is not right with them is told when they are read
        elif name not in ("image_root", "deepspeed") and not path.is_file():
            problems.append(DataError(t("data file not found"), where=f"--{name}", got=path))
    return problems


def find_state(path: Path) -> Path | None:
    """The resumable state that a path means: itself, or for the guide's ``.../step_1000`` our ``checkpoint-1000``."""
    number = path.name.removeprefix("step_").removeprefix("checkpoint-")
    for candidate in (path, path.parent / f"checkpoint-{number}"):
        if (candidate / "state.json").is_file():
            return candidate
    return None
