"""MGM trained in the plain, padded way of its original, to measure ours against; nothing of our loop is used.

As the original does it: a picture is opened, prepared and normalised one at a time into float32 tensors of both sizes
(the small one is made from the large one); samples are tokenised when they are fetched; samples without a picture
bring pictures of zeros, on which both towers run; CLIP runs all its layers; all stages of the high-resolution tower
are scaled up and joined at full size, and keys and values are made of every position; text and picture tokens are put
together sample by sample; everything is padded to the longest of the micro-batch; logits are float32, of the whole
vocabulary, at every position; the loss is the mean of each micro-batch's mean; layers of the language model are
recomputed.

Otherwise than there: no other process decodes pictures, so that nothing is pickled (in the original's favour), and the
frozen tower's stochastic depth is off, because both sides must compute the same numbers.

Shape letters: B samples, L positions, D language width, C low-resolution width, N tokens of a picture, P positions of a
region, F high-resolution channels, H W map positions, V vocabulary.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import CLIPVisionModel, DynamicCache, GemmaModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from bettersynth.models.family import Example
from bettersynth.models.mgm.config import MgmConfig

IMAGE, IGNORE = -200, -100
_MEAN = (122, 116, 104)
_HEADS = ("vlm_uni_query_projector", "vlm_uni_aux_projector", "vlm_uni_val_projector")
Sample = dict[str, torch.Tensor]


# ---------------------------------------------------------------- data


class PlainData:
    """Items made when they are asked for.

    Args:
        encode: tokenises a record, which is part of what fetching costs.
        records: LLaVA records, one per example.
        root: folder of the pictures.
        aspect: ``pad`` or ``square``.
        sizes: sides of the large and of the small view.
    """

    def __init__(
        self, encode: Any, records: Sequence[dict[str, Any]], root: Path, aspect: str, sizes: tuple[int, int]
    ) -> None:
        self.encode, self.records, self.root, self.aspect, self.sizes = encode, records, root, aspect, sizes
        large = sizes[0]
        self.prepare = CLIPImageProcessorPil(
            size={"shortest_edge": large}, crop_size={"height": large, "width": large}, do_convert_rgb=True
        )

    def __getitem__(self, index: int) -> Sample:
        record = copy.deepcopy(self.records[index])
        example: Example = self.encode(record)
        ids, labels = torch.tensor(example.input_ids), torch.tensor(example.labels)
        if "image" in record:
            large, small = self.views(self.root / record["image"])
        else:
            large, small = (torch.zeros(3, side, side) for side in self.sizes)
        return {"ids": ids, "labels": labels, "large": large, "small": small}

    def views(self, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        """Both views of a picture, (3, H, W) float32 each."""
        picture = Image.open(path).convert("RGB")
        if self.aspect == "pad":
            picture = _squared(picture)
        large = self.prepare.preprocess(picture, return_tensors="pt")["pixel_values"][0]
        size = (self.sizes[1], self.sizes[1])
        return large, F.interpolate(large[None], size=size, mode="bilinear", align_corners=False)[0]


def _squared(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    side = max(width, height)
    square = Image.new("RGB", (side, side), _MEAN)
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square


def joined(samples: Sequence[Sample], pad_id: int) -> Sample:
    """One micro-batch, padded to its longest sample."""
    pad = nn.utils.rnn.pad_sequence
    ids = pad([sample["ids"] for sample in samples], batch_first=True, padding_value=pad_id)
    labels = pad([sample["labels"] for sample in samples], batch_first=True, padding_value=IGNORE)
    large, small = (torch.stack([sample[name] for sample in samples]) for name in ("large", "small"))
    return {"ids": ids, "labels": labels, "mask": ids.ne(pad_id), "large": large, "small": small}


# ---------------------------------------------------------------- model


class _Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(dim))
        self.conv_dw = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv_dw(x_BCHW).permute(0, 2, 3, 1))
        y = self.mlp["fc2"](F.gelu(self.mlp["fc1"](y))).permute(0, 3, 1, 2)
        return x_BCHW + y * self.gamma.view(1, -1, 1, 1)


class _ChannelNorm(nn.LayerNorm):
    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return super().forward(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Stage(nn.Module):
    def __init__(self, before: int, dim: int, depth: int) -> None:
        super().__init__()
        parts = [_ChannelNorm(before, eps=1e-6), nn.Conv2d(before, dim, 2, stride=2)] if before != dim else []
        self.downsample, self.blocks = nn.Sequential(*parts), nn.Sequential(*(_Block(dim) for _ in range(depth)))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.downsample(x_BCHW))


class PlainMgm(nn.Module):
    """The whole model with the weights of ours; parameter names are the checkpoint's."""

    def __init__(self, config: MgmConfig) -> None:
        super().__init__()
        self.config = config
        self.model = GemmaModel(config.gemma())
        for layer in self.model.layers:
            layer.mlp.act_fn = nn.GELU() if config.is_exact_gelu else layer.mlp.act_fn
        width, dims = int(config.vision["hidden_size"]), config.dims
        for name in _HEADS:
            features = width if name == _HEADS[0] else sum(dims)
            self.model.add_module(name, nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width)))
        hidden = config.hidden_size
        self.model.mm_projector = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        clip = nn.ModuleDict({"vision_model": CLIPVisionModel(config.clip())})
        self.model.vision_tower = nn.ModuleDict({"vision_tower": clip})
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), _ChannelNorm(dims[0], eps=1e-6))
        stages = zip((dims[0], *dims[:-1]), dims, config.depths, strict=True)
        self.model.vision_tower_aux = nn.ModuleDict(
            {"vision_stem": stem, "vision_stages": nn.ModuleList(_Stage(*stage) for stage in stages)}
        )

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the embedding; the library's own module would scale them as well."""
        return F.embedding(ids, self.model.embed_tokens.weight)

    def recompute(self) -> None:
        """Keep no activations of the language model's layers."""
        self.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})

    @torch.no_grad()
    def _towers(self, small: torch.Tensor, large: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        clip = self.model.vision_tower["vision_tower"]["vision_model"]
        x_BNC = clip(small, output_hidden_states=True).hidden_states[-2][:, 1:]
        aux = self.model.vision_tower_aux
        maps, state = [], aux["vision_stem"](large)
        for stage in aux["vision_stages"]:
            state = stage(state)
            maps.append(state)
        size = maps[0].shape[-2:]
        scaled = [F.interpolate(one.float(), size=size, mode="bilinear", align_corners=False) for one in maps[1:]]
        return x_BNC, torch.cat([maps[0], *scaled], dim=1)

    def pictures(self, small: torch.Tensor, large: torch.Tensor) -> torch.Tensor:
        """(B, N, D) tokens of all pictures, those of zeros included."""
        x_BNC, f_BFHW = self._towers(small, large)
        side = math.isqrt(x_BNC.shape[1])
        step = f_BFHW.shape[-1] // side
        cut = f_BFHW.view(*f_BFHW.shape[:2], side, step, side, step).permute(0, 2, 4, 3, 5, 1)
        f_BNPF = cut.flatten(1, 2).flatten(2, 3).contiguous()
        query, key, value = (self.model.get_submodule(name) for name in _HEADS)
        q_BN1C, k_BNPC, v_BNPC = query(x_BNC)[:, :, None], key(f_BNPF), value(f_BNPF)
        logits_BN1P = q_BN1C @ k_BNPC.transpose(-1, -2) / math.sqrt(q_BN1C.shape[-1])
        logits_BN1P = torch.nan_to_num(logits_BN1P)
        mined_BNC = (logits_BN1P.softmax(-1) @ v_BNPC)[:, :, 0]
        return self.model.mm_projector(x_BNC + mined_BNC)

    def spliced(self, batch: Sample) -> Sample:
        """Embeddings (B, L, D), labels and mask after the pictures' tokens have been put in, sample by sample."""
        features = self.pictures(batch["small"], batch["large"])
        rows: list[tuple[torch.Tensor, torch.Tensor]] = []
        used = 0
        for ids, labels, mask in zip(batch["ids"], batch["labels"], batch["mask"], strict=True):
            ids, labels = ids[mask], labels[mask]
            places = torch.where(ids == IMAGE)[0].tolist()
            if not places:
                rows.append((torch.cat([self.embed(ids), features[used][:0]]), labels))
                used += 1
                continue
            parts, targets, at = [], [], 0
            for place in places:
                parts += [self.embed(ids[at:place]), features[used]]
                targets += [labels[at:place], labels.new_full((features.shape[1],), IGNORE)]
                used, at = used + 1, place + 1
            parts.append(self.embed(ids[at:]))
            rows.append((torch.cat(parts), torch.cat([*targets, labels[at:]])))
        limit = int(self.config.get("tokenizer_model_max_length"))
        rows = [(embeds[:limit], labels[:limit]) for embeds, labels in rows]
        length = max(len(labels) for _, labels in rows)
        embeds, new_labels, masks = [], [], []
        for row, labels in rows:
            missing = length - len(labels)
            embeds.append(torch.cat([row, row.new_zeros(missing, row.shape[1])]))
            new_labels.append(torch.cat([labels, labels.new_full((missing,), IGNORE)]))
            masks.append(torch.arange(length) < len(labels))
        return {"embeds": torch.stack(embeds), "labels": torch.stack(new_labels), "mask": torch.stack(masks)}

    def forward(self, batch: Sample) -> torch.Tensor:
        """Mean loss of a micro-batch."""
        ready = self.spliced(batch)
        scale = torch.tensor(math.sqrt(self.config.hidden_size), dtype=ready["embeds"].dtype)
        states = self.model(inputs_embeds=ready["embeds"] * scale, attention_mask=ready["mask"], use_cache=False)
        logits_BLV = F.linear(states.last_hidden_state, self.model.embed_tokens.weight).float()
        shifted, targets = logits_BLV[:, :-1].contiguous(), ready["labels"][:, 1:].contiguous()
        return F.cross_entropy(shifted.view(-1, shifted.shape[-1]), targets.view(-1), ignore_index=IGNORE)


# ---------------------------------------------------------------- training


def lr_at(step: int, steps: int, peak: float, warmup_ratio: float) -> float:
    """Cosine to 0 after a warm-up whose first step has rate 0."""
    warmup = math.ceil(steps * warmup_ratio)
    if step < warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def trained_names(model: PlainMgm, stage: int) -> set[str]:
    """Stage 1: projector and miner; stage 2: all but the towers."""
    first = ("model.mm_projector", *(f"model.{name}" for name in _HEADS))
    names = [name for name, _ in model.named_parameters() if not name.startswith("model.vision_tower")]
    return {name for name in names if stage == 2 or name.startswith(first)}


def train(
    model: PlainMgm,
    data: PlainData,
    plan: Sequence[Sequence[Sequence[int]]],
    *,
    stage: int,
    lr: float,
    pad_id: int,
    warmup_ratio: float = 0.03,
    watch: Any = None,
) -> tuple[list[float], float]:
    """Train; ``plan`` holds, for every step, the samples of each micro-batch.

    Args:
        watch: given model, named trained parameters and optimiser, makes a context to train in.

    Returns:
        Loss of each step, and CPU seconds.
    """
    names = trained_names(model, stage)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW([p for _, p in trained], lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    model.train()
    losses = []
    before = time.process_time()
    with watch(model, trained, optimizer) if watch is not None else nullcontext():
        for step, parts in enumerate(plan):
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step, len(plan), lr, warmup_ratio)
            total = 0.0
            for batch in _batches(data, parts, pad_id):
                loss = model(batch) / len(parts)
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_([p for _, p in trained], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(total)
    return losses, time.process_time() - before


def _batches(data: PlainData, parts: Sequence[Sequence[int]], pad_id: int) -> Iterator[Sample]:
    for indices in parts:
        yield joined([data[index] for index in indices], pad_id)


# ---------------------------------------------------------------- answering


class PlainAnswers:
    """One question at a time with a key-value cache: the picture is opened, prepared and encoded for every question."""

    def __init__(self, ours: nn.Module, processor: Any) -> None:
        config: MgmConfig = ours.config  # type: ignore[assignment]
        self.model, self.processor = PlainMgm(config).eval(), processor
        self.model.load_state_dict(ours.state_dict(), strict=True)
        sizes = (config.image_size_aux, config.image_size_low)
        self.data = PlainData(None, [], Path(), processor.image_aspect_ratio, sizes)

    @torch.inference_mode()
    def answer(self, request: Any, num_tokens: int) -> list[int]:
        """The likeliest continuation, ``num_tokens`` long."""
        example = self.processor.encode_question(request.key, request.prompt, request.image)
        large, small = self.data.views(Path(request.image.path))
        ids = torch.tensor([example.input_ids])
        batch = {"ids": ids, "labels": ids, "mask": torch.ones_like(ids, dtype=torch.bool)}
        embeds = self.model.spliced({**batch, "large": large[None], "small": small[None]})["embeds"]
        mask, cache, found = torch.ones(embeds.shape[:2], dtype=torch.long), DynamicCache(), []
        scale = math.sqrt(self.model.config.hidden_size)
        for _ in range(num_tokens):
            states = self.model.model(
                inputs_embeds=embeds * scale, attention_mask=mask, past_key_values=cache, use_cache=True
            )
            logits_1LV = F.linear(states.last_hidden_state, self.model.model.embed_tokens.weight).float()
            found.append(int(logits_1LV[0, -1].argmax()))
            embeds = self.model.embed(torch.tensor([found[-1:]]))
            mask = torch.cat([mask, mask.new_ones(1, 1)], 1)
        return found
