"""Low-rank adaptation of a language model, kept in the file format of the PEFT library, and merged back into weights.

A trained layer computes ``W x + (alpha / rank) B (A x)`` with W frozen. Names stay the public ones: ``NAME.weight`` is
the frozen weight, ``NAME.lora_A.weight`` (rank, in) and ``NAME.lora_B.weight`` (out, rank) are trained.
Source: Hu et al. 2021 (LoRA), section 4.1; start values as there: A random, B zero, so that training begins at W.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from bettersynth.config.train import Lora, StageConfig
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.core.seed import derive_seed
from bettersynth.models.family import LoraSites, ModelFamily
from bettersynth.models.layers.quantize import FrozenWeight
from bettersynth.models.weights import Tensors, load_tensors, read_json, save_tensors, write_json

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
FOLDER = "lora"
"""Where a stage that also writes merged weights keeps its adapter. Beside them, libraries would add it again."""
_PREFIX = "base_model.model."
_PARTS = (".lora_A.weight", ".lora_B.weight")
_UNKNOWN = ("use_dora", "fan_in_fan_out", "lora_bias")
"""Switches of PEFT that change the arithmetic and are not carried out here."""


class LoraLinear(nn.Module):
    """A frozen linear layer with a trained low-rank addition; stands in for the layer under its name.

    Args:
        base: the layer; its weight is shared, not copied, unless it is kept in few bits.
        spec: rank, alpha, dropout and bits of the frozen weight.
    """

    def __init__(self, base: nn.Linear, spec: Lora) -> None:
        super().__init__()
        self.bias = base.bias
        self.frozen = FrozenWeight(base.weight, spec.quantize) if spec.quantize is not None else None
        self.weight = base.weight if self.frozen is None else None
        self.lora_A = _empty_linear(base.in_features, spec.rank, base.weight.device)
        self.lora_B = _empty_linear(spec.rank, base.out_features, base.weight.device)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
        self.scale = spec.alpha / spec.rank
        for parameter in (base.weight, base.bias):
            if parameter is not None:
                parameter.requires_grad_(False)

    def dense(self) -> torch.Tensor:
        """The frozen weight (out, in): its own tensor, or what its few bits stand for, in float32."""
        if self.frozen is not None:
            return self.frozen.dense()
        assert self.weight is not None
        return self.weight

    def start(self, generator: torch.Generator) -> None:
        """Draw A as PyTorch draws a linear layer's weight, and let B be zero."""
        bound = 1 / math.sqrt(self.lora_A.in_features)
        with torch.no_grad():
            if not self.lora_A.weight.is_meta:
                drawn = torch.empty(self.lora_A.weight.shape).uniform_(-bound, bound, generator=generator)
                self.lora_A.weight.copy_(drawn)
            self.lora_B.weight.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        low = self.dropout(x).to(self.lora_A.weight.dtype)
        added = self.lora_B(self.lora_A(low)) * self.scale
        if self.frozen is not None:
            whole = self.frozen.linear(x, self.bias)
        else:
            whole = F.linear(x, self.dense(), self.bias)
        return whole + added.to(whole.dtype)

    def merged(self) -> nn.Linear:
        """A plain layer that computes the same; the sum is taken in float32 and rounded to the frozen weight's type."""
        weight = add_low_rank(self.dense(), self.lora_A.weight, self.lora_B.weight, self.scale)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=self.bias is not None, device="meta")
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = self.bias
        return layer


def _empty_linear(num_in: int, num_out: int, device: torch.device) -> nn.Linear:
    layer = nn.Linear(num_in, num_out, bias=False, device="meta")
    layer.weight = nn.Parameter(torch.empty(num_out, num_in, device=device))
    return layer


def add_low_rank(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """``weight + scale * b @ a`` in the type of ``weight``, computed in float32."""
    with torch.no_grad():
        return torch.addmm(weight.float(), b.float(), a.float(), alpha=scale).to(weight.dtype)


def is_added(name: str) -> bool:
    """Whether a parameter belongs to a low-rank addition."""
    return name.endswith(_PARTS)


def sites(family: ModelFamily, model: nn.Module) -> LoraSites:
    """Where a family takes low-rank weights. Raises ConfigError when it takes none."""
    find = getattr(family, "lora_sites", None)
    if find is None:
        raise ConfigError(t("this family has no LoRA"), where="lora", got=family.name)
    found: LoraSites = find(model)
    return found


def attach(config: StageConfig, family: ModelFamily, model: nn.Module) -> set[str]:
    """Put low-rank layers into a model; returns the names of all parameters that are then trained.

    Raises:
        ConfigError: the family takes no LoRA, or the rank is larger than any layer's smaller side.
    """
    assert config.lora is not None
    where = sites(family, model)
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.fullmatch(where.pattern, name)
    }
    # A larger rank saves nothing, and a slip may ask for more memory than there is. A plan attaches to a model that
    # has its layers already, and then finds none.
    widest = max((min(module.in_features, module.out_features) for module in linears.values()), default=None)
    if widest is not None and config.lora.rank > widest:
        expected = t("at most {n}", n=widest)
        raise ConfigError(
            t("no layer is as wide as this rank"), where="lora.rank", got=config.lora.rank, expected=expected
        )
    for name, module in linears.items():
        layer = LoraLinear(module, config.lora)
        layer.start(torch.Generator().manual_seed(derive_seed(config.seed, "lora", name)))
        _replace(model, name, layer)
    names = {name for name, _ in model.named_parameters()}
    return {name for name in names if name.endswith(_PARTS) or _is_full(name, where)}


def _is_full(name: str, where: LoraSites) -> bool:
    return any(part in name.split(".") for part in where.full)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def round_frozen(family: ModelFamily, model: nn.Module, kind: str) -> None:
    """Let a plain model's adapted layers have the weights they had in few bits, in place."""
    pattern = sites(family, model).pattern
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and re.fullmatch(pattern, name):
            module.weight.data = FrozenWeight(module.weight, kind).dense().to(module.weight.dtype)


def merge(model: nn.Module) -> None:
    """Turn every low-rank layer of a model into a plain one, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLinear):
            _replace(model, name, module.merged())


def save(config: StageConfig, family: ModelFamily, model: nn.Module, folder: Path) -> None:
    """Write the trained parameters as a PEFT adapter; those trained in full are its ``modules_to_save``.

    Args:
        model: with low-rank layers in it.
        folder: made if needed; the configuration is written last.
    """
    assert config.lora is not None
    where = sites(family, model)
    kept = {n: p.detach() for n, p in model.named_parameters() if n.endswith(_PARTS) or _is_full(n, where)}
    save_tensors({_PREFIX + name: tensor.float() for name, tensor in kept.items()}, folder / WEIGHTS_FILE)
    fields = {
        "peft_type": "LORA",
        "task_type": None,  # PEFT then asks nothing of the model, be it ours or the library's Gemma
        "base_model_name_or_path": where.base,
        "r": config.lora.rank,
        "lora_alpha": config.lora.alpha,
        "lora_dropout": config.lora.dropout,
        "target_modules": where.pattern,
        "modules_to_save": list(where.full),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }
    write_json(fields, folder / CONFIG_FILE)


def apply(model: nn.Module, folder: Path) -> list[str]:
    """Add a PEFT adapter to a plain model's weights; returns the names of the changed parameters.

    Args:
        model: with the weights the adapter was trained on.
        folder: the adapter, ours or one made by PEFT.

    Raises:
        DataError: no adapter, one that is no plain LoRA, or one that does not fit. Nothing is changed then.
    """
    fields = read_json(folder / CONFIG_FILE)
    strange = [f"{key}: {fields[key]}" for key in _UNKNOWN if fields.get(key)]
    if fields.get("peft_type") != "LORA" or fields.get("bias", "none") != "none" or strange:
        got = ", ".join(strange) or f"{fields.get('peft_type')}, bias {fields.get('bias')}"
        raise DataError(t("not a plain LoRA adapter"), where=str(folder / CONFIG_FILE), got=got)
    tensors = {name.removeprefix(_PREFIX): v for name, v in load_tensors(folder / WEIGHTS_FILE).items()}
    own = dict(model.named_parameters())
    changed: Tensors = {}
    problems = []
    for name, value, wanted in _changes(tensors, fields, own):
        if wanted is None or value.shape != wanted:
            problems.append(f"{name}: {tuple(value.shape)} != {tuple(wanted) if wanted is not None else None}")
        changed[name] = value
    if problems or not changed:
        raise DataError(
            t("the adapter does not fit the model"), where=str(folder), got="; ".join(problems[:5]) or t("none")
        )
    with torch.no_grad():
        for name, value in changed.items():
            own[name].copy_(value)
    return sorted(changed)


def _changes(
    tensors: Tensors, fields: dict[str, Any], own: dict[str, nn.Parameter]
) -> Iterator[tuple[str, torch.Tensor, torch.Size | None]]:
    """(parameter, its new value, its own shape) for every tensor or pair of an adapter."""
    rank, alpha = int(fields["r"]), float(fields["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank)
    for name, tensor in tensors.items():
        if name.endswith(_PARTS[1]):
            continue
        target = name.removesuffix(_PARTS[0]) + ".weight" if name.endswith(_PARTS[0]) else name
        base = own.get(target)
        shape = None if base is None else base.shape
        if target == name:
            yield target, tensor, shape
            continue
        partner = tensors.get(name.replace(_PARTS[0], _PARTS[1]))
        if base is None or partner is None or (partner.shape[0], tensor.shape[1]) != tuple(base.shape):
            yield name, tensor, None
            continue
        yield target, add_low_rank(base, tensor, partner, scale), shape
