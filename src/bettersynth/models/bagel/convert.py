"""The official folder, read and written one tensor at a time: ``ema.safetensors``, ``ae.safetensors``, configurations.

A ``trained_model.pt`` (one state dict as torch saves it) is read as well.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.core.seed import derive_seed
from bettersynth.models.bagel.autoencoder import AutoEncoder
from bettersynth.models.bagel.config import BagelConfig, load_config
from bettersynth.models.bagel.files import AE_FILE, MODEL_FILES, check_folder, find_model_file
from bettersynth.models.bagel.glue import PositionTable
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.tokens import special_tokens
from bettersynth.models.layers.quantize import FEW_BITS, FewBitLinear, keep_in_few_bits
from bettersynth.models.stream import TensorReader, write_stream
from bettersynth.models.weights import load_tensors, write_json

TABLES = ("latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "generation_config.json", "config.json"),
)
_WRAPPERS = ("module.", "_orig_mod.")


def load_checkpoint(
    folder: Path,
    *,
    dtype: torch.dtype | None,
    weights: Path | None = None,
    attention: str = "sdpa",
    has_vae: bool = True,
    load_in: str = "",
) -> BagelModel:
    """A model from an official folder. Peak memory is the model's own size plus one tensor.

    Args:
        folder: configurations, weights, autoencoder, tokenizer.
        dtype: of the parameters; the autoencoder stays in float32. None: they are mapped from the file as they are
            stored, the tables are float32.
        weights: another weight file, e.g. a ``trained_model.pt``.
        attention: ``sdpa`` or ``flex``.
        has_vae: whether ``ae.safetensors`` is read.
        load_in: ``nf4`` or ``int8`` keeps the matrices of the decoder's layers in few bits, each from the moment it is
            read; for inference alone.

    Raises:
        DataError: files are missing or damaged, or tensors do not fit the configuration.
    """
    check_folder(folder, weights=weights, has_vae=has_vae)
    path = weights or find_model_file(folder)
    rows: dict[str, int] = {}
    if path.suffix == ".safetensors":
        with TensorReader(path) as reader:
            rows = {name: reader.shape(name)[0] for name in TABLES if name in reader}
    config = load_config(folder, special=special_tokens(folder), latent_rows=rows.get(TABLES[0]))
    _check_tables(config, rows, path)
    with torch.device("meta"):
        model = BagelModel(config, attention=attention)
    if load_in:
        if load_in not in FEW_BITS:
            expected = t("one of: {names}", names=", ".join(FEW_BITS))
            raise ConfigError(t("unsupported value"), where="load_in", got=load_in, expected=expected)
        keep_in_few_bits(model.decoder.layers, load_in)
    fill(model, path, dtype=dtype, optional=TABLES)
    for table in (model.latent_pos_embed, model.vit_pos_embed):
        table.fill()
        table.to(dtype)
    if has_vae:
        model.set_autoencoder(load_autoencoder(folder, config))
    model.tokenizer_folder = str(folder)
    return model.eval()


def _check_tables(config: BagelConfig, rows: dict[str, int], path: Path) -> None:
    """Raise DataError where the files' sizes of the tables are not those that the weights were trained with.

    A place in a table is row * side + column: with another side every place is a wrong one, without any error later.
    """
    sides = dict(zip(TABLES, ("max_latent_size", "vit_max_num_patch_per_side"), strict=True))
    for name, count in rows.items():
        side = getattr(config, sides[name])
        if count != side**2:
            raise DataError(
                t("the weights were trained with another table of positions than the folder's files say"),
                where=str(path),
                got=f"{sides[name]}: {side}",
                expected=f"{sides[name]}: {round(count**0.5)}",
                hint=t("correct bagel_config.json in that folder"),
            )


def load_autoencoder(folder: Path, config: BagelConfig) -> AutoEncoder:
    """The autoencoder of an official folder, float32."""
    with torch.device("meta"):
        autoencoder = AutoEncoder(config.vae)
    fill(autoencoder, folder / AE_FILE, dtype=torch.float32)
    return autoencoder.eval()


def fill(
    module: nn.Module,
    path: Path,
    *,
    dtype: torch.dtype | None,
    optional: tuple[str, ...] = (),
) -> None:
    """Give an empty (meta) module the tensors of a file, each read straight into its own memory, or (None) mapped.

    Raises:
        DataError: tensors are missing, unexpected or of other shapes; all are counted, the first are named.
    """
    wanted = dict(_places(module))
    problems: list[str] = []
    seen: set[str] = set()
    for name, shape, read in _stored(path, dtype):
        if name in optional:
            continue
        seen.add(name)
        if name not in wanted:
            problems.append(t("unexpected: {names}", names=name))
        elif tuple(shape) != tuple(wanted[name][2].shape):
            problems.append(f"{name}: {tuple(shape)} != {tuple(wanted[name][2].shape)}")
        else:
            owner, key, _ = wanted[name]
            owner._parameters[key] = nn.Parameter(read())
            if isinstance(owner, FewBitLinear) and key == "weight":
                owner.settle()
    problems += [t("missing: {names}", names=name) for name in wanted if name not in seen and name not in optional]
    if problems:
        raise DataError(
            t("the weights do not fit the config ({n} tensors)", n=len(problems)),
            where=str(path),
            got="; ".join(problems[:5]),
        )


def _places(module: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str, nn.Parameter]]]:
    for prefix, owner in module.named_modules():
        for key, parameter in owner._parameters.items():
            if parameter is not None:
                yield (f"{prefix}.{key}" if prefix else key), (owner, key, parameter)


def _stored(path: Path, dtype: torch.dtype | None) -> Iterator[tuple[str, tuple[int, ...], Callable[[], torch.Tensor]]]:
    """Name, shape and a function that reads it, for each tensor of a file."""
    if path.suffix == ".safetensors" and dtype is not None:
        with TensorReader(path) as reader:
            for name in reader:
                yield name, tuple(reader.shape(name)), lambda name=name: reader.read(name, dtype)
        return
    tensors = load_tensors(path)
    for name in list(tensors):
        tensor = tensors.pop(name)
        for wrapper in _WRAPPERS:
            name = name.removeprefix(wrapper)
        yield name, tuple(tensor.shape), lambda tensor=tensor: _held(tensor, dtype)


def _held(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor if dtype is None else tensor.to(dtype, copy=True)  # a copy, as the file is mapped


def save_checkpoint(model: BagelModel, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write the official folder: tables included, as the original's demo wants to find them; weights last.

    Args:
        model: its autoencoder is written too if it has one.
        folder: made if absent.
        dtype: of the written weights; by default the model's own. The autoencoder is always written in float32.

    Raises:
        ConfigError: the weights are kept in few bits.
    """
    if any(isinstance(part, FewBitLinear) for part in model.modules()):
        raise ConfigError(t("weights in few bits cannot be saved"), expected=t("the model in full precision"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in model.config.files().items():
        write_json(value, folder / name)
    source = Path(model.tokenizer_folder) if model.tokenizer_folder else None
    if source is not None and source.resolve() != folder.resolve():
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    if model._autoencoder:
        write_stream(folder / AE_FILE, model.autoencoder.state_dict())
    write_stream(folder / MODEL_FILES[0], model.state_dict(), dtype=dtype)
    model.tokenizer_folder = str(folder)


def build_fresh(config: BagelConfig, *, seed: int, dtype: torch.dtype = torch.float32) -> BagelModel:
    """A model with random weights drawn from ``seed`` alone: generation twins copied, velocity zero at first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "bagel"))
        model = BagelModel(config)
        for name, parameter in model.language_model.named_parameters():
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        model.decoder.init_generation()
        nn.init.zeros_(model.llm2vae.weight)
        nn.init.zeros_(model.llm2vae.bias)
        model.set_autoencoder(AutoEncoder(config.vae))
    for part in model.modules():
        if isinstance(part, PositionTable):
            part.fill()
    return model.to(dtype)
