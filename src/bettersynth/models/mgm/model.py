"""The MGM model: pictures to tokens, tokens into Gemma's sequence, loss at the answer.

Shape letters: B sequences, L positions, D language width, I pictures, V views, N tokens of a view,
C low-resolution width, H W pixels or map positions, F high-resolution channels, T targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import CLIPVisionModel, GemmaModel

from bettersynth.media.resize import CLIP_MEAN, CLIP_STD
from bettersynth.models.family import Batch, LossOutput, TargetDetail
from bettersynth.models.mgm.config import MgmConfig
from bettersynth.models.mgm.mining import cut_regions, cut_tiles, join_stages, mine, mine_maps, mine_reference, shrink
from bettersynth.models.mgm.packing import NAME as PACKED_ATTENTION
from bettersynth.models.mgm.vision import ConvNeXtTrunk

MINER_HEADS = ("vlm_uni_query_projector", "vlm_uni_aux_projector", "vlm_uni_val_projector")
CONNECTOR = ("mm_projector", *MINER_HEADS)
"""Children of ``model`` that stage 1 trains."""
TOWERS = ("vision_tower", "vision_tower_aux")
EmbeddingHook = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes unscaled embeddings (B, L, D) and which positions are text (B, L), and gives embeddings back."""
LOSS_CHUNK_TARGETS = 2048
"""Targets whose logits exist at once: 2048 x 256000 float32 values are 2 GB."""


class ImageFeatures(NamedTuple):
    """Stages of image encoding, each (I * V, N, ...) except ``tokens``, which is (I, V * N, D) and unscaled."""

    clip: torch.Tensor
    query: torch.Tensor
    attention: torch.Tensor
    value: torch.Tensor
    fused: torch.Tensor
    tokens: torch.Tensor


class ClipTower(nn.Module):
    """The low-resolution tower under its public name ``vision_tower.vision_tower.vision_model``."""

    def __init__(self, config: MgmConfig) -> None:
        super().__init__()
        self.vision_tower = nn.ModuleDict({"vision_model": CLIPVisionModel(config.clip())})
        self.num_layers = config.vision_layers

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 3, h, w) normalised pixels -> (B, N, C) patch tokens; later layers and the last norm are not run."""
        clip = self.vision_tower["vision_model"]
        x_BNC = clip.pre_layrnorm(clip.embeddings(x_BCHW))
        for layer in clip.encoder.layers[: self.num_layers]:
            x_BNC = layer(x_BNC, attention_mask=None)
        return x_BNC[:, 1:]


def build_projector(config: MgmConfig) -> nn.Sequential:
    """Two linear layers with exact GELU between them, from vision width to language width."""
    width, hidden = int(config.vision["hidden_size"]), config.hidden_size
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))


def build_miner_head(config: MgmConfig, name: str) -> nn.Sequential:
    """One (LayerNorm, Linear) head of the miner."""
    width = int(config.vision["hidden_size"])
    features = width if name == "vlm_uni_query_projector" else sum(config.dims)
    return nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width))


def _in_use(module: nn.Module) -> nn.Module:
    """The layers themselves; inside PEFT's wrapper (``modules_to_save``) the copy that is switched on, if one is."""
    copies: Any = getattr(module, "modules_to_save", None)
    if copies is None:
        return module
    wrapper: Any = module
    names = [] if wrapper.disable_adapters else [name for name in wrapper.active_adapters if name in copies]
    found: nn.Module = copies[names[0]] if names else wrapper.original_module
    return found


def normalise_pixels(pixels_IHW3: torch.Tensor) -> torch.Tensor:
    """uint8 (I, H, W, 3) -> float32 (I, 3, H, W) in channels-last memory, scaled and normalised as CLIP wants."""
    mean, std = (torch.tensor(values, device=pixels_IHW3.device) for values in (CLIP_MEAN, CLIP_STD))
    return ((pixels_IHW3.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def low_resolution_views(
    high_I3HW: torch.Tensor, size: int, *, grid: int = 1, has_global: bool = False
) -> torch.Tensor:
    """(I, 3, H, W) -> (I, V, 3, h, w): bilinear without antialias, on normalised pixels, as the original does.

    In HD mode the picture at grid times the size is cut into row-major crops; the whole picture comes last.
    """
    whole = F.interpolate(high_I3HW, size=(size * grid, size * grid), mode="bilinear", align_corners=False)
    if grid == 1:
        return whole.unsqueeze(1)
    tiles = cut_tiles(whole.permute(0, 2, 3, 1), grid).permute(0, 3, 1, 2)
    views = tiles.reshape(len(whole), grid * grid, 3, size, size)
    if has_global:
        small = F.interpolate(whole, size=(size, size), mode="bilinear", align_corners=False)
        views = torch.cat([views, small.unsqueeze(1)], dim=1)
    return views


class MgmModel(nn.Module):
    """Gemma with two frozen vision towers, patch-info mining and a projector.

    The vision parts are children of Gemma's body, so that every parameter has the name it has in public checkpoints.
    The output head is Gemma's embedding (tied) and is not stored twice.

    Args:
        config: sizes.
        attention: attention of the transformers library, ``sdpa`` or ``eager``.
    """

    def __init__(self, config: MgmConfig, *, attention: str = "sdpa") -> None:
        super().__init__()
        self.config = config
        self.model = GemmaModel(config.gemma(attention))
        self.set_activation("gelu" if config.is_exact_gelu else "gelu_pytorch_tanh")
        self.model.mm_projector = build_projector(config)
        for name in MINER_HEADS:
            self.model.add_module(name, build_miner_head(config, name))
        self.model.vision_tower = ClipTower(config)
        self.model.vision_tower_aux = ConvNeXtTrunk(config.depths, config.dims)
        self.use_reference_mining = False
        self.embedding_hook: EmbeddingHook | None = None
        self.tokenizer_folder: str | None = None

    def set_activation(self, name: str) -> None:
        """Let Gemma's layers use the exact GELU (``gelu``) or its tanh form."""
        for layer in self.model.layers:
            layer.mlp.act_fn = nn.GELU(approximate="none" if name == "gelu" else "tanh")
        if self.config.fields.get("hidden_act", "gelu") != name:
            self.config = self.config.with_fields(hidden_act=name)

    def train(self, mode: bool = True) -> MgmModel:
        """Like ``nn.Module.train``, but the frozen towers stay in evaluation mode.

        The original leaves them in training mode; only with stochastic depth does that make a difference.
        """
        super().train(mode)
        self.model.vision_tower.eval()
        self.model.vision_tower_aux.train(mode and self.model.vision_tower_aux.stochastic_depth > 0)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> MgmModel:
        super()._apply(fn, recurse)
        rotary = self.model.rotary_emb
        if rotary.inv_freq.dtype != torch.float32:
            # Rotary frequencies lose whole positions in half precision; a cast of the model must not touch them.
            self.model.rotary_emb = type(rotary)(self.model.config).to(rotary.inv_freq.device)
        return self

    def gradient_checkpointing_enable(self, num_layers: int | None = None) -> None:
        """Recompute Gemma's layers (the first ``num_layers``) in the backward pass, not keeping their activations."""
        new = getattr(self.model, "activation_checkpointing_enable", None)  # the name since transformers 5.2x
        if new is not None:
            new(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for layer in self.model.layers[num_layers:] if num_layers is not None else ():
            layer.gradient_checkpointing = False

    def enable_packing(self) -> None:
        """Accept packed batches (see :func:`bettersynth.models.mgm.collate.pack`) besides padded ones."""
        self.model.config._attn_implementation = PACKED_ATTENTION

    def connector_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Projector and miner, what stage 1 trains, with full names."""
        for child in CONNECTOR:
            for name, parameter in self.model.get_submodule(child).named_parameters():
                yield f"model.{child}.{name}", parameter

    # -- pictures ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def tower_maps(self, low_IV3hw: torch.Tensor, high_I3HW: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What the frozen towers put out: tokens (I * V, N, C), and one map (I, C_s, H_s, W_s) per stage."""
        aux = self.model.vision_tower_aux
        tokens = self.model.vision_tower(low_IV3hw.flatten(0, 1))
        return tokens, aux(high_I3HW.to(aux.vision_stem[0].weight.dtype))

    @torch.no_grad()
    def _regions(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """The regions that the tokens look at, (I * V, N, P, F)."""
        f_IHWF = join_stages(maps)
        num_tokens, grid = self.config.tokens_per_view, int(self.config.get("image_grid"))
        if grid == 1:
            return cut_regions(f_IHWF, num_tokens)
        regions = cut_regions(cut_tiles(f_IHWF, grid), num_tokens).unflatten(0, (-1, grid * grid))
        if self.config.get("image_global"):
            whole = cut_regions(shrink(f_IHWF, grid), num_tokens)
            regions = torch.cat([regions, whole.unsqueeze(1)], dim=1)
        return regions.flatten(0, 1)

    def features_of(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Tower outputs of uint8 pictures (I, H, W, 3), one row per picture, ready to be kept and joined again.

        Maps are stored channels last: the kernels that read them later round as the memory order tells them to.
        """
        tokens, maps = self.tower_maps(*self._views(pixels))
        features = {"tower_tokens": tokens.unflatten(0, (-1, self.config.num_views))}
        return features | {f"tower_map_{s}": map_ICHW.permute(0, 2, 3, 1) for s, map_ICHW in enumerate(maps)}

    def encode_features(self, features: Batch) -> torch.Tensor:
        """Rows of :meth:`features_of` -> (I, tokens_per_image, D), unscaled."""
        maps = [features[f"tower_map_{s}"].permute(0, 3, 1, 2) for s in range(len(self.config.dims))]
        return self.connect(features["tower_tokens"].flatten(0, 1), maps).tokens

    def connect(self, clip_BNC: torch.Tensor, maps: Sequence[torch.Tensor]) -> ImageFeatures:
        """Mine the stages' maps and project to the language width (B = I * V), in the connector's precision."""
        projector = _in_use(self.model.mm_projector)
        dtype = next(projector.parameters()).dtype  # frozen towers may be held in fewer bits than what is trained
        clip_BNC = clip_BNC.to(dtype)
        heads = [_in_use(self.model.get_submodule(name)) for name in MINER_HEADS]
        if self.use_reference_mining:
            mined = mine_reference(*heads, clip_BNC, self._regions(maps).to(dtype))
        elif int(self.config.get("image_grid")) > 1:  # its whole view scales the joined map itself
            mined = mine(*heads, clip_BNC, self._regions(maps).to(dtype))
        else:
            device = clip_BNC.device.type
            used = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype
            mined = mine_maps(*heads, clip_BNC, [one.to(used) for one in maps])
        fused = clip_BNC + mined.value
        tokens = projector(fused).unflatten(0, (-1, self.config.num_views))
        if self.config.num_views > 1 and self.config.get("image_global"):
            tokens = tokens.roll(1, dims=1)  # the whole picture is the last view but comes first in the sequence
        return ImageFeatures(clip_BNC, *mined, fused, tokens.flatten(1, 2))

    def encode_views(self, low_IV3hw: torch.Tensor, high_I3HW: torch.Tensor) -> ImageFeatures:
        """All stages of encoding of normalised pixels."""
        return self.connect(*self.tower_maps(low_IV3hw, high_I3HW))

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pictures (I, H, W, 3) -> (I, tokens_per_image, D), unscaled."""
        return self.encode_views(*self._views(pixels)).tokens

    @torch.no_grad()
    def _views(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Low- and high-resolution views of uint8 pictures."""
        high = normalise_pixels(pixels)
        grid, has_global = int(self.config.get("image_grid")), bool(self.config.get("image_global"))
        return low_resolution_views(high, self.config.image_size_low, grid=grid, has_global=has_global), high

    # -- language ------------------------------------------------------------------------------------------------

    @property
    def embedding(self) -> nn.Parameter:
        """(vocabulary, D): input embedding and, tied, output head."""
        return self.model.embed_tokens.weight

    def embed(self, batch: Batch, image_tokens: torch.Tensor | None = None) -> torch.Tensor:
        """(B, L, D) unscaled: embedded text with image tokens in their places and zeros at padding.

        Args:
            batch: see :func:`bettersynth.models.mgm.collate.collate`.
            image_tokens: (I, tokens_per_image, D) if already encoded; by default ``batch["images"]`` is encoded, or the
                batch's own tower features if it brings them.
        """
        input_ids, positions = batch["input_ids"], batch["image_positions"]
        embeds = F.embedding(input_ids, self.embedding, self.model.padding_idx)
        if len(positions):
            tokens = self._image_tokens(batch) if image_tokens is None else image_tokens
            flat = embeds.flatten(0, 1).index_copy(0, positions, tokens.flatten(0, 1).to(embeds.dtype))
            embeds = flat.view_as(embeds)
        elif torch.is_grad_enabled():
            # A batch of text only must still give the connector a (zero) gradient.
            embeds = embeds + 0.0 * sum(parameter.sum() for _, parameter in self.connector_parameters())
        return embeds * batch["attention_mask"].unsqueeze(-1).to(embeds.dtype)

    def _image_tokens(self, batch: Batch) -> torch.Tensor:
        return self.encode_features(batch) if "tower_tokens" in batch else self.encode_images(batch["images"])

    def scale(self, embeds: torch.Tensor) -> torch.Tensor:
        """Times sqrt(D), rounded to the dtype as the original does; image tokens are scaled too."""
        return embeds * torch.tensor(math.sqrt(self.config.hidden_size), dtype=embeds.dtype, device=embeds.device)

    def hidden_states(
        self, embeds_BLD: torch.Tensor, *, mask: torch.Tensor | None = None, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gemma over unscaled embeddings -> (B, L, D) after the final norm.

        Args:
            embeds_BLD: result of :meth:`embed`.
            mask: (B, L), needed only for left padding: causal attention never looks at padding on the right.
            positions: (B, L), needed only for left padding.
        """
        output = self.model(
            inputs_embeds=self.scale(embeds_BLD), attention_mask=mask, position_ids=positions, use_cache=False
        )
        return output.last_hidden_state

    def packed_hidden_states(self, embeds_1LD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Gemma over a row of several sequences -> (1, L, D) after the final norm; none sees another."""
        lengths, positions = batch["segment_lengths"].tolist(), batch["position_ids"]
        x_1LD = self.scale(embeds_1LD)
        rotary = self.model.rotary_emb(x_1LD, position_ids=positions)
        for layer in self.model.layers:
            x_1LD = layer(
                x_1LD,
                attention_mask=None,
                position_ids=positions,
                position_embeddings=rotary,
                segment_lengths=lengths,
            )
        normed: torch.Tensor = self.model.norm(x_1LD)
        return normed

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., vocabulary), float32."""
        return F.linear(hidden, self.embedding).float()

    def target_states(self, batch: Batch, image_tokens: torch.Tensor | None = None) -> torch.Tensor:
        """(T, D) of a right-padded or packed batch: what the targets are predicted from."""
        embeds = self.embed(batch, image_tokens)
        if self.embedding_hook is not None:
            is_text = batch["attention_mask"].clone()
            is_text.view(-1)[batch["image_positions"]] = False
            embeds = self.embedding_hook(embeds, is_text)
        is_packed = "segment_lengths" in batch
        hidden = self.packed_hidden_states(embeds, batch) if is_packed else self.hidden_states(embeds)
        return hidden.flatten(0, 1).index_select(0, batch["target_positions"])

    def loss(self, batch: Batch, image_tokens: torch.Tensor | None = None) -> LossOutput:
        """Summed cross-entropy over the targets of a right-padded or packed batch; logits exist at targets only."""
        hidden_TD = self.target_states(batch, image_tokens)
        targets = batch["target_ids"]
        chunks = list(zip(hidden_TD.split(LOSS_CHUNK_TARGETS), targets.split(LOSS_CHUNK_TARGETS), strict=True))
        total = hidden_TD.float().sum() * 0.0 if not len(targets) else hidden_TD.new_zeros((), dtype=torch.float32)
        for hidden_chunk, target_chunk in chunks:
            if len(chunks) > 1:
                total = total + checkpoint(self._chunk_loss, hidden_chunk, target_chunk, use_reentrant=False)
            else:
                total = total + self._chunk_loss(hidden_chunk, target_chunk)
        return LossOutput(total, torch.tensor(targets.numel(), device=targets.device))

    def detailed_loss(self, batch: Batch) -> LossOutput:
        """The loss with each target's own part in it."""
        hidden_TD, targets_T = self.target_states(batch), batch["target_ids"]
        pairs = zip(hidden_TD.split(LOSS_CHUNK_TARGETS), targets_T.split(LOSS_CHUNK_TARGETS), strict=True)
        parts = [checkpoint(self._chunk_losses, *pair, use_reentrant=False) for pair in pairs]
        losses_T = torch.cat(parts) if parts else hidden_TD.float().sum(-1)
        if "segment_lengths" in batch:
            ends = batch["segment_lengths"].cumsum(0)
            owner_T = torch.searchsorted(ends, batch["target_positions"], right=True)
        else:
            owner_T = batch["target_positions"] // batch["input_ids"].shape[1]
        num_targets = torch.tensor(targets_T.numel(), device=targets_T.device)
        return LossOutput(losses_T.sum(), num_targets, TargetDetail(losses_T, owner_T, hidden_TD))

    def _chunk_losses(self, hidden_TD: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.logits(hidden_TD), targets_T, reduction="none")

    def _chunk_loss(self, hidden_TD: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.logits(hidden_TD), targets_T, reduction="sum")

    def forward(self, batch: Batch, is_detailed: bool = False) -> LossOutput:
        """The loss, so that wrappers that intercept ``forward`` (data parallel) work."""
        return self.detailed_loss(batch) if is_detailed else self.loss(batch)
