"""Train the two towers of the tiny MGM from dense labels: a ConvNeXt trunk at 96 px and a CLIP ViT at 48 px.

The read-outs see exactly what the mining head will see: LayerNorm over the concatenated stage maps, averaged over
each token's 4 x 4 region, then one linear layer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel

from bettersynth.demo.bases.vision_data import (
    READING,
    DenseHeads,
    dense_accuracy,
    dense_batches,
    dense_loss,
    low_resolution,
    optimiser,
    schedule,
    start_values,
    step_optimiser,
)
from bettersynth.demo.world.vocab import BASE_VOCAB, EVAL_VOCAB
from bettersynth.media.resize import CLIP_MEAN, CLIP_STD
from bettersynth.models.mgm.vision import ConvNeXtTrunk, load_convnext_trunk, trunk_to_open_clip
from bettersynth.models.weights import load_tensors, save_pickle, save_tensors, write_json

CONVNEXT_NAME = "openclip-convnext-large-d-320-tiny"
CONVNEXT_DIMS, CONVNEXT_DEPTHS = (24, 48, 96, 160), (1, 1, 3, 1)
REGION = 4


class TrunkReader(nn.Module):
    """A trunk with throw-away linear heads on the mined view of its maps."""

    def __init__(self, trunk: ConvNeXtTrunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.norm = nn.LayerNorm(sum(trunk.dims))
        self.heads = DenseHeads(sum(trunk.dims))

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 3, 96, 96) -> (B, 36, C) as uniform mining attention would give it."""
        maps = self.trunk(x_BCHW)
        size = maps[0].shape[-2:]
        up = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps]
        f_BHWC = self.norm(torch.cat(up, 1).permute(0, 2, 3, 1))
        return F.avg_pool2d(f_BHWC.permute(0, 3, 1, 2), REGION).flatten(2).transpose(1, 2)

    def forward(self, x_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of every dense head."""
        return self.heads(self.features(x_BCHW))


def train_convnext(folder: Path, *, num_steps: int = 3000, batch_size: int = 32, seed: int = 1) -> None:
    """Train the high-resolution tower and save it in open_clip's layout."""
    torch.manual_seed(seed)  # the read-outs start from torch's own generator
    trunk = ConvNeXtTrunk(CONVNEXT_DEPTHS, CONVNEXT_DIMS, gamma_init=0.5)
    start_values(trunk, torch.Generator().manual_seed(seed))
    reader = TrunkReader(trunk).to(memory_format=torch.channels_last)
    optim = optimiser(reader.parameters())
    started = time.process_time()
    batches = dense_batches(seed, batch_size, num_steps, recoloured_share=0.0)  # a ConvNeXt does not need it
    for step, (x_BCHW, labels_BHP) in enumerate(batches):
        loss = dense_loss(reader(x_BCHW), labels_BHP)
        step_optimiser(optim, loss, schedule(step, num_steps, 3e-3))
        if (step + 1) % 500 == 0 or step + 1 == num_steps:
            reader.eval()
            scores = dense_accuracy(reader, EVAL_VOCAB, 128)
            reader.train()
            seconds = time.process_time() - started
            print(f"convnext step {step + 1} loss {loss.item():.3f} {seconds:.0f} s {scores}", file=sys.stderr)
            save_convnext(trunk, folder)
    print(f"convnext: {time.process_time() - started:.0f} CPU s, {dense_accuracy(reader, EVAL_VOCAB)}")


def save_convnext(trunk: ConvNeXtTrunk, folder: Path) -> None:
    """Write `open_clip_config.json` and `open_clip_pytorch_model.bin`."""
    save_pickle(trunk_to_open_clip(trunk), folder / "open_clip_pytorch_model.bin")
    vision = {"timm_model_name": "convnext_tiny_demo", "timm_pool": "", "timm_proj": "mlp", "image_size": 96}
    preprocess = {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)}
    write_json(
        {"model_cfg": {"embed_dim": 32, "vision_cfg": vision}, "preprocess_cfg": preprocess},
        folder / "open_clip_config.json",
    )


# --- the low-resolution tower -------------------------------------------------------------------------------

CLIP_NAME = "clip-vit-tiny"
CLIP_PX, CLIP_PATCH_PX = 48, 8
CLIP_HEADS = ("thing", "colour")  # 48 px is too coarse for letters: those are the other tower's work


def clip_vision_config() -> CLIPVisionConfig:
    """The tiny CLIP vision tower: 48 px, patches of 8 px (36 tokens), 128 wide, 4 layers."""
    return CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        projection_dim=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=CLIP_PX,
        patch_size=CLIP_PATCH_PX,
        hidden_act="quick_gelu",
    )


class VitReader(nn.Module):
    """A ViT with throw-away heads on the layer before the last (what MGM reads) and on the last."""

    def __init__(self, vit: nn.Module, dim: int, heads: Sequence[str], image_px: int) -> None:
        super().__init__()
        self.vit, self.image_px = vit, image_px
        self.middle, self.last = DenseHeads(dim, heads), DenseHeads(dim, heads)

    def both(self, x_BCHW: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Logits read from the last but one and from the last layer's patches."""
        out = self.vit(low_resolution(x_BCHW, self.image_px), output_hidden_states=True)
        return self.middle(out.hidden_states[-2][:, 1:]), self.last(out.last_hidden_state[:, 1:])

    def forward(self, x_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits of the layer before the last."""
        return self.both(x_BCHW)[0]


def train_clip_vit(folder: Path, *, num_steps: int = 2500, batch_size: int = 32, seed: int = 2) -> None:
    """Train the low-resolution tower and save it as a Hugging Face CLIP vision folder."""
    torch.manual_seed(seed)
    vit = CLIPVisionModel(clip_vision_config())
    start_values(vit, torch.Generator().manual_seed(seed))
    reader = VitReader(vit, 128, CLIP_HEADS, CLIP_PX)
    train_dense(reader, "clip-vit", num_steps=num_steps, batch_size=batch_size, seed=seed, peak=2e-3)
    save_clip_vit(vit, folder)


def train_dense(reader: VitReader, label: str, *, num_steps: int, batch_size: int, seed: int, peak: float) -> None:
    """Train a ViT under both read-outs on fresh base pictures."""
    optim = optimiser(reader.parameters())
    started = time.process_time()
    for step, (x_BCHW, labels_BHP) in enumerate(dense_batches(seed, batch_size, num_steps)):
        middle, last = reader.both(x_BCHW)
        loss = dense_loss(middle, labels_BHP) + dense_loss(last, labels_BHP)
        step_optimiser(optim, loss, schedule(step, num_steps, peak))
        if (step + 1) % 500 == 0:
            seconds = time.process_time() - started
            scores = dense_accuracy(reader, EVAL_VOCAB, 128)
            print(f"{label} step {step + 1} loss {loss.item():.3f} {seconds:.0f} s {scores}", file=sys.stderr)
    print(f"{label}: {time.process_time() - started:.0f} CPU s, {dense_accuracy(reader, EVAL_VOCAB)}")


def save_clip_vit(vit: CLIPVisionModel, folder: Path) -> None:
    """Write config, weights under the names of real CLIP checkpoints, and the preprocessor's configuration."""
    write_json(model_config(vit), folder / "config.json")
    names = {f"vision_model.{name.removeprefix('vision_model.')}": v for name, v in vit.state_dict().items()}
    save_tensors({k: v.half() for k, v in names.items() if "position_ids" not in k}, folder / "model.safetensors")
    write_json(preprocessor_config(CLIP_PX), folder / "preprocessor_config.json")


_CONFIG_NOISE = ("_name_or_path", "transformers_version", "dtype", "id2label", "label2id", "problem_type")


def model_config(model: PreTrainedModel) -> dict[str, Any]:
    """A model's `config.json`, without what says nothing or changes with the library's version."""

    def clean(config: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in config.items() if key not in _CONFIG_NOISE}
        return {key: clean(value) if isinstance(value, dict) else value for key, value in kept.items()}

    return clean(model.config.to_dict()) | {"architectures": [type(model).__name__]}


def preprocessor_config(image_px: int) -> dict[str, object]:
    """CLIP's image processor for squares of `image_px`."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": image_px},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": image_px, "width": image_px},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
        "do_convert_rgb": True,
    }


# --- linear probes of the shipped towers --------------------------------------------------------------------


def probe(part: str, out: Path, *, num_steps: int = 300, seed: int = 9) -> dict[str, object]:
    """What a fresh linear read-out of a frozen, shipped tower finds, after `num_steps` batches of base pictures.

    Args:
        part: "tower" (read through uniform mining) or "clip" (layer before the last).
        out: folder of the model folders.
        num_steps: training steps of the read-out, 32 pictures each.
        seed: of its pictures.
    """
    reader: nn.Module
    if part == "tower":
        reader = TrunkReader(load_convnext_trunk(out / CONVNEXT_NAME).float())
        frozen: nn.Module = reader.trunk
    else:
        vit = CLIPVisionModel(clip_vision_config())
        weights = load_tensors(out / CLIP_NAME / "model.safetensors")
        vit.load_state_dict({k.removeprefix("vision_model."): v.float() for k, v in weights.items()})
        reader = VitReader(vit, 128, READING, CLIP_PX)
        frozen = vit
    frozen.requires_grad_(False)
    optim = optimiser([p for p in reader.parameters() if p.requires_grad])
    for step, (x_BCHW, labels_BHP) in enumerate(dense_batches(seed, 32, num_steps)):
        step_optimiser(optim, dense_loss(reader(x_BCHW), labels_BHP), schedule(step, num_steps, 1e-2))
    return {vocab.name: dense_accuracy(reader, vocab) for vocab in (BASE_VOCAB, EVAL_VOCAB)}
