"""The BAGEL model: text, ViT tokens and latents in one packed sequence; cross-entropy on text, flow on latents.

Shape letters: L packed tokens, D language width, N tokens of one kind, P numbers per latent token, T targets,
B pictures, Z latent channels, H W positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bettersynth.models.bagel.autoencoder import AutoEncoder
from bettersynth.models.bagel.config import BagelConfig
from bettersynth.models.bagel.glue import Connector, PositionTable, TimeEmbedder
from bettersynth.models.bagel.packing import patchify
from bettersynth.models.bagel.vision import VitEncoder
from bettersynth.models.family import Batch
from bettersynth.models.layers.attention import PackedAttention
from bettersynth.models.layers.masks import Visibility
from bettersynth.models.layers.mot import MotDecoder, MotSizes, Rows

_BEFORE = (
    *("language_model.model.embed_tokens.", "vit_model.vision_model.embeddings."),
    *("connector.", "time_embedder.", "vae2llm."),
)
"""What a packed sequence is embedded with, besides the layers of the vision encoder."""
LOSS_CHUNK_TARGETS = 2048
"""Targets whose logits exist at once: 2048 x 152064 float32 values are 1.2 GB."""


@dataclass(frozen=True, slots=True)
class JointLoss:
    """Sums of both losses and what they cover, so that the trainer chooses the normalisation.

    Attributes:
        ce: (T,) cross-entropy of each text target.
        ce_weights: (T,) weight of each target under reweighting.
        mse: (N, P) squared error of each number of each learnt latent token.
    """

    ce: torch.Tensor
    ce_weights: torch.Tensor
    mse: torch.Tensor

    @property
    def mse_per_token(self) -> torch.Tensor:
        """Mean over the numbers of each latent token."""
        return self.mse.mean(-1)

    def mean_ce(self, *, is_reweighted: bool = False) -> torch.Tensor:
        """Mean over the text targets (0 without any), weighted by 1 / sqrt(length) if asked for."""
        if is_reweighted:
            return (self.ce * self.ce_weights).sum() / self.ce_weights.sum().clamp(min=1e-12)
        return self.ce.sum() / max(1, len(self.ce))

    def mean_mse(self) -> torch.Tensor:
        """Mean over the learnt latent tokens (0 without any)."""
        return self.mse_per_token.sum() / max(1, len(self.mse))

    def total(self, ce_weight: float = 1.0, mse_weight: float = 1.0, *, is_reweighted: bool = False) -> torch.Tensor:
        """The weighted sum of both means."""
        return ce_weight * self.mean_ce(is_reweighted=is_reweighted) + mse_weight * self.mean_mse()


def shift_time(times: torch.Tensor, shift: float) -> torch.Tensor:
    """t -> s t / (1 + (s - 1) t): more time at high noise for s > 1. Source: Esser et al. 2024, section 5.3.2."""
    return shift * times / (1 + (shift - 1) * times)


class LanguageModel(nn.Module):
    """Decoder and output head under the names of the public weights."""

    def __init__(self, config: BagelConfig) -> None:
        super().__init__()
        llm = config.llm
        sizes = MotSizes(
            hidden=llm.hidden_size,
            mlp=llm.intermediate_size,
            num_layers=llm.num_hidden_layers,
            num_heads=llm.num_attention_heads,
            num_kv_heads=llm.num_key_value_heads,
            rms_eps=llm.rms_norm_eps,
            rope_theta=llm.rope_theta,
        )
        self.model = MotDecoder(sizes, llm.vocab_size)
        self.lm_head = nn.Linear(llm.hidden_size, llm.vocab_size, bias=False)


class BagelModel(nn.Module):
    """Everything in ``ema.safetensors``, and the frozen autoencoder beside it.

    Args:
        config: sizes.
        attention: ``sdpa`` or ``flex``, for training.
    """

    def __init__(self, config: BagelConfig, *, attention: str = "sdpa") -> None:
        super().__init__()
        self.config = config
        dim, vit = config.llm.hidden_size, config.vit
        self.language_model = LanguageModel(config)
        self.vit_model = nn.ModuleDict({"vision_model": VitEncoder(vit, config.vit_layers)})
        self.connector = Connector(vit.hidden_size, dim)
        self.time_embedder = TimeEmbedder(dim)
        self.vae2llm = nn.Linear(config.latent_dim, dim)
        self.llm2vae = nn.Linear(dim, config.latent_dim)
        self.latent_pos_embed = PositionTable(config.max_latent_size, dim)
        self.vit_pos_embed = PositionTable(config.vit_max_num_patch_per_side, dim)
        self.attention = attention
        self.is_und_frozen = False
        self.is_uniform = False
        """Whether every pass runs the vision encoder and reaches every trained part, whatever is in the batch."""
        self.tokenizer_folder: str | None = None
        # Not a child: the autoencoder is no part of the checkpoint, never trained, and has a file of its own.
        self._autoencoder: list[AutoEncoder] = []

    @property
    def autoencoder(self) -> AutoEncoder:
        """The frozen autoencoder."""
        return self._autoencoder[0]

    def set_autoencoder(self, autoencoder: AutoEncoder) -> None:
        """Attach the autoencoder; it follows the model's moves to another device."""
        self._autoencoder = [autoencoder.eval().requires_grad_(False)]

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        for part in self._autoencoder:
            part._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @property
    def decoder(self) -> MotDecoder:
        """The layers of the language model."""
        return self.language_model.model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.llm2vae.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.llm2vae.weight.dtype

    # -- inputs --------------------------------------------------------------------------------------------------

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        """(N,) -> (N, D)."""
        return self.decoder.embed_tokens(ids)

    def embed_vit(self, patches: torch.Tensor, position_ids: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Patches of pictures -> (N, D); see :class:`VitEncoder`."""
        return self.embed_features(self.vit_model["vision_model"](patches, position_ids, lengths), position_ids)

    def embed_features(self, features: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """What the vision encoder makes of pictures -> (N, D)."""
        return self.connector(features) + self.vit_pos_embed(position_ids)

    def embed_latents(self, x_NP: torch.Tensor, times: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """(N, P) latents at times (N,) or (1,), shifted and in [0, 1] -> (N, D)."""
        time = self.time_embedder(times)
        return self.vae2llm(x_NP.to(self.dtype)) + time + self.latent_pos_embed(position_ids)

    @torch.no_grad()
    def latents_of(self, batch: Batch) -> torch.Tensor:
        """(B, Z, H, W) padded latents of a batch: given, or encoded from its padded pictures."""
        if "padded_latent" in batch:
            return batch["padded_latent"]
        return self.autoencoder.encode(batch["padded_images"], batch.get("posterior_eps"))

    def latent_tokens(self, latents_BZHW: torch.Tensor, shapes: Sequence[Sequence[int]]) -> torch.Tensor:
        """Padded latents -> (N, P) tokens of all pictures, each cropped to its own (rows, columns) of tokens."""
        patch = self.config.latent_patch_size
        cut = [z[:, : rows * patch, : cols * patch] for z, (rows, cols) in zip(latents_BZHW, shapes, strict=True)]
        return torch.cat([patchify(z, patch) for z in cut])

    def embed(self, batch: Batch, noised: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(L, D) the packed sequence that enters the decoder."""
        text = self.embed_text(batch["packed_text_ids"])
        parts, places = [text], [batch["packed_text_indexes"]]
        if len(batch["packed_vit_token_indexes"]):
            ids = batch["packed_vit_position_ids"]
            if "packed_vit_features" in batch:
                parts.append(self.embed_features(batch["packed_vit_features"], ids))
            else:
                parts.append(self.embed_vit(batch["packed_vit_tokens"], ids, batch["vit_token_seqlens"].tolist()))
            places.append(batch["packed_vit_token_indexes"])
        if noised:
            parts.append(self.embed_latents(noised["x"], noised["times"], batch["packed_latent_position_ids"]))
            places.append(batch["packed_vae_token_indexes"])
        rows, index = torch.cat([part.to(text.dtype) for part in parts]), torch.cat(places)
        embeds = torch.zeros_like(rows).index_copy(0, index, rows)
        return embeds + self._nothing(batch) if self.is_uniform else embeds

    def _nothing(self, batch: Batch) -> torch.Tensor:
        """Zero that depends on all that comes before the decoder; a batch without pictures encodes one grey patch."""
        parts = [p.sum() for name, p in self.named_parameters() if p.requires_grad and name.startswith(_BEFORE)]
        if not len(batch["packed_vit_token_indexes"]):
            vit = self.config.vit
            patch = self.llm2vae.weight.new_zeros(1, 3 * vit.patch_size**2)
            place = torch.zeros(1, dtype=torch.long, device=patch.device)
            parts.append(self.embed_vit(patch, place, [1]).sum())
        return 0.0 * sum(parts)

    def add_noise(self, batch: Batch, shift: float | None = None) -> dict[str, torch.Tensor]:
        """Noised latents of a batch.

        Returns:
            ``x`` (N, P) = (1 - t) z + t e, ``target`` (N, P) = e - z, ``times`` (N,); empty without latents. The noise
            is the batch's ``noise``, or drawn from its ``noise_seed``.
        """
        if not len(batch["packed_vae_token_indexes"]):
            return {}
        clean = self.latent_tokens(self.latents_of(batch), batch["patchified_vae_latent_shapes"].tolist())
        noise = batch.get("noise")
        if noise is None:
            generator = torch.Generator().manual_seed(int(batch["noise_seed"])) if "noise_seed" in batch else None
            noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        times = torch.sigmoid(batch["packed_timesteps"].float())
        times = shift_time(times, self.config.timestep_shift if shift is None else shift)
        clean, noise = clean.float(), noise.float()
        part = times[:, None]
        return {"x": (1 - part) * clean + part * noise, "target": noise - clean, "times": times}

    # -- training ------------------------------------------------------------------------------------------------

    def hidden_states(self, batch: Batch, embeds_LD: torch.Tensor) -> torch.Tensor:
        """(L, D) after the final norms, in packed order."""
        sees = Visibility.build(
            *(batch[name].tolist() for name in ("sample_lens", "split_lens", "attn_modes")), embeds_LD.device
        )
        latents = batch["packed_vae_token_indexes"]
        und = torch.cat([batch["packed_text_indexes"], batch["packed_vit_token_indexes"]]).sort().values
        routing = self.decoder.routing(und, latents, batch["packed_position_ids"])
        rows = routing.split(embeds_LD)
        if self.is_und_frozen:
            rows = Rows(rows.und.detach(), rows.gen)
        attend = PackedAttention(sees, self.attention)
        rows = self.decoder.run_layers(rows, routing, attend, is_und_frozen=self.is_und_frozen)
        return routing.join(self.decoder.final_norms(rows, is_und_frozen=self.is_und_frozen))

    def losses(self, batch: Batch, *, shift: float | None = None) -> JointLoss:
        """Both losses of a packed batch; ``shift`` overrides the configured time shift."""
        noised = self.add_noise(batch, shift)
        hidden = self.hidden_states(batch, self.embed(batch, noised))
        mse = hidden.new_zeros((0, self.config.latent_dim), dtype=torch.float32)
        if noised and len(batch["mse_loss_indexes"]):
            velocity = self.llm2vae(hidden.index_select(0, batch["mse_loss_indexes"]))
            # Which latents are learnt: both lists of places rise, and the learnt ones are among all.
            rows = torch.searchsorted(batch["packed_vae_token_indexes"], batch["mse_loss_indexes"])
            mse = (velocity.float() - noised["target"].index_select(0, rows)).square()
        return JointLoss(self._cross_entropy(hidden, batch), batch["ce_loss_weights"], mse)

    def _cross_entropy(self, hidden_LD: torch.Tensor, batch: Batch) -> torch.Tensor:
        hidden_TD = hidden_LD.index_select(0, batch["ce_loss_indexes"])
        pieces = list(
            zip(
                hidden_TD.split(LOSS_CHUNK_TARGETS),
                batch["packed_label_ids"].split(LOSS_CHUNK_TARGETS),
                strict=True,
            )
        )
        if len(pieces) == 1:
            return self._chunk_loss(*pieces[0])
        return torch.cat([checkpoint(self._chunk_loss, *piece, use_reentrant=False) for piece in pieces])

    def _chunk_loss(self, hidden_TD: torch.Tensor, labels_T: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.language_model.lm_head(hidden_TD).float(), labels_T, reduction="none")

    def forward(self, batch: Batch) -> JointLoss:
        """The losses, so that wrappers that intercept ``forward`` (data parallel) work."""
        return self.losses(batch)
