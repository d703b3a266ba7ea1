"""Learn from a better model's answers: its probabilities for each target token, and, at equal width, its last states.

Source: Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), equation 4 (temperature squared keeps the
gradients' size); Romero et al., "FitNets" (2015), for the states.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bettersynth.config.train import Number
from bettersynth.core.errors import ConfigError, DataError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.models.family import Batch, LossOutput
from bettersynth.train.bases import path_digest
from bettersynth.train.technique import LossFn, Technique, TechniqueRun

_CHUNK_TARGETS = 512


class Settings(BaseModel):
    """Keys of ``distillation``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: Path
    """A full checkpoint (stage 2), or the folder of a stage-1 result, which is put on this run's own bases."""
    weight: Number = Field(0.5, gt=0, le=1)
    """Share of the teacher's term in the loss; the rest is the plain loss."""
    temperature: Number = Field(2.0, gt=0)
    """Softens both distributions."""
    feature_weight: Number = Field(0.0, ge=0)
    """How much the distance of the last hidden states counts besides."""
    top_k: int | None = Field(None, ge=1)
    """Only the teacher's this many likeliest tokens count, and all others together as one."""
    cache: Path | None = None
    """File that keeps the teacher's top_k for each sample: later runs need no teacher for them."""

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.cache is not None and (self.top_k is None or self.feature_weight):
            raise ValueError(t("a cache needs top_k and cannot hold features (feature_weight: 0)"))
        return self


class Distillation(Technique):
    """The teacher sees the same batches, without gradient."""

    is_detailed = True
    needs = ("head",)

    def __init__(self, settings: Settings, run: TechniqueRun) -> None:
        super().__init__(settings, run)
        if not settings.teacher.exists():
            raise DataError(t("teacher not found"), where=str(settings.teacher))
        self._loaded: nn.Module | None = None
        self._cache = _Cache(settings.cache, path_digest(settings.teacher)) if settings.cache else None

    @property
    def _teacher(self) -> nn.Module:
        """Loaded when it is first asked: with a full cache it never is."""
        if self._loaded is None:
            loaded = _load_teacher(self.settings.teacher, self.run)
            self._loaded = loaded.to(self.run.devices.device).eval().requires_grad_(False)
        return self._loaded

    def loss(self, inner: LossFn, model: nn.Module, batch: Batch, indices: Sequence[int]) -> LossOutput:
        """Plain loss and divergence from the teacher, mixed."""
        plain = inner(model, batch)
        assert plain.detail is not None
        student_TD = plain.detail.hidden
        soft, teacher_TD = self._targets(batch, indices, plain.detail.owner)
        total = student_TD.new_zeros((), dtype=torch.float32)
        for at in range(0, len(student_TD), _CHUNK_TARGETS):
            part = slice(at, at + _CHUNK_TARGETS)
            pieces = tuple(item[part] for item in soft)
            total = total + checkpoint(self._divergence, model, student_TD[part], *pieces, use_reentrant=False)
        weight, feature_weight = float(self.settings.weight), float(self.settings.feature_weight)
        loss = (1 - weight) * plain.loss_sum + weight * total
        if feature_weight:
            assert teacher_TD is not None  # a cache excludes features
            if teacher_TD.shape != student_TD.shape:
                raise ConfigError(
                    t("teacher and student have different widths, so their states cannot be compared"),
                    where="techniques.distillation.feature_weight",
                    got=f"{teacher_TD.shape[-1]} / {student_TD.shape[-1]}",
                    hint=t("set feature_weight: 0"),
                )
            loss = loss + feature_weight * F.mse_loss(student_TD.float(), teacher_TD.float()) * plain.num_targets
        return LossOutput(loss, plain.num_targets, detail=plain.detail)

    def _divergence(self, model: nn.Module, hidden_TD: torch.Tensor, *soft: torch.Tensor) -> torch.Tensor:
        """Sum over targets of T^2 KL(teacher, student). ``soft``: teacher states, or top values and their tokens."""
        family: Any = self.run.family
        heat = float(self.settings.temperature)
        student_TV = F.log_softmax(family.head(model, hidden_TD) / heat, -1)
        if len(soft) == 1:
            teacher_TV = F.log_softmax(family.head(self._teacher, soft[0]) / heat, -1)
            return heat**2 * F.kl_div(student_TV, teacher_TV, reduction="sum", log_target=True)
        teacher_TK, tokens_TK = soft[0].float(), soft[1].long()
        student_TK = student_TV.gather(-1, tokens_TK)
        rest_teacher, rest_student = (
            torch.log1p(-x.exp().sum(-1).clamp(max=1 - 1e-6)) for x in (teacher_TK, student_TK)
        )
        known = (teacher_TK.exp() * (teacher_TK - student_TK)).sum()
        return heat**2 * (known + (rest_teacher.exp() * (rest_teacher - rest_student)).sum())

    @torch.no_grad()
    def _targets(
        self, batch: Batch, indices: Sequence[int], owner_T: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
        """What the teacher says at each target: its states, or (with top_k) log probabilities and tokens."""
        names = [self._name(index) for index in indices]
        found = self._cache.get(names) if self._cache is not None else None
        if found is not None:
            return tuple(part.to(owner_T.device) for part in found), None
        family: Any = self.run.family
        hidden_TD = family.detailed_loss(self._teacher, batch).detail.hidden
        if self.settings.top_k is None:
            return (hidden_TD,), hidden_TD
        parts = []
        for chunk in hidden_TD.split(_CHUNK_TARGETS):
            chances = F.log_softmax(family.head(self._teacher, chunk) / float(self.settings.temperature), -1)
            parts.append(chances.topk(min(self.settings.top_k, chances.shape[-1]), -1))
        # Half precision always, so that a run that finds them in the cache is the same run.
        values_TK = torch.cat([part.values for part in parts]).half()
        tokens_TK = torch.cat([part.indices for part in parts]).int()
        if self._cache is not None:
            self._cache.put(names, owner_T, values_TK, tokens_TK)
        return (values_TK, tokens_TK), hidden_TD

    def _name(self, index: int) -> str:
        """All that decides the teacher's answer but the teacher: tokens, pictures, how pictures are prepared."""
        example, config = self.run.data.examples[index], self.run.config
        files = [(config.images / image.path).stat() for image in example.images]
        pictures = [
            [image.path, file.st_size, file.st_mtime_ns] for image, file in zip(example.images, files, strict=True)
        ]
        how = [config.image_aspect_ratio, config.image_size_aux, self.settings.top_k, self.settings.temperature]
        return digest_json([example.input_ids, example.labels, pictures, how])


class _Cache:
    """Teacher's answers by sample, in one SQLite file; rows of another teacher are never found."""

    def __init__(self, path: Path, teacher: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._teacher = teacher
        self._database = sqlite3.connect(path, timeout=60.0, isolation_level=None)
        self._database.execute("CREATE TABLE IF NOT EXISTS answers (name BLOB PRIMARY KEY, k INT, data BLOB)")

    def _name(self, name: str) -> bytes:
        return xxhash.xxh3_128_digest(f"{self._teacher} {name}".encode())

    def get(self, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(T, K) values and tokens of all samples of a batch, or None when one is missing."""
        values, tokens = [], []
        for name in names:
            row = self._database.execute("SELECT k, data FROM answers WHERE name = ?", (self._name(name),)).fetchone()
            if row is None:
                return None
            data = np.frombuffer(row[1], np.uint8)
            half = data.size // 3
            values.append(data[:half].view(np.float16).reshape(-1, row[0]))
            tokens.append(data[half:].view(np.int32).reshape(-1, row[0]))
        return torch.from_numpy(np.concatenate(values)), torch.from_numpy(np.concatenate(tokens))

    def put(self, names: Sequence[str], owner_T: torch.Tensor, values: torch.Tensor, tokens: torch.Tensor) -> None:
        """Keep what the teacher said."""
        owner = owner_T.cpu().numpy()
        all_values, all_tokens = values.cpu().numpy(), tokens.cpu().numpy()
        self._database.execute("BEGIN IMMEDIATE")
        for place, name in enumerate(names):
            mine = owner == place
            data = all_values[mine].tobytes() + all_tokens[mine].tobytes()
            row = (self._name(name), all_values.shape[1], data)
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", row)
        self._database.execute("COMMIT")


def _load_teacher(folder: Path, run: TechniqueRun) -> nn.Module:
    from bettersynth.train.bases import load_start

    is_adapter = (
        folder.is_file()
        or (folder / "mm_projector.safetensors").exists()
        or ((folder / "mm_projector.bin").exists() and not any(folder.glob("*model*.bin")))
    )
    if is_adapter and not any(folder.glob("model*.safetensors")):
        config = run.config.model_copy(update={"adapter": folder})
        return load_start(config, run.family)
    return run.family.load_checkpoint(folder, dtype=torch.float32, model_zoo=run.config.model_zoo)


TECHNIQUE = Distillation
