"""What only a card can say, at the sizes of BAGEL-7B with random weights: ``python -m benchmarks.bagel gpu``.

``draw``: seconds for a picture of 1024 x 1024 px with 50 steps and both guidances, its decoding apart, and peak memory,
weights in bf16. ``lora``: training of low-rank additions in all layers. ``full``: training of every weight of as many
layers as the card's memory allows. For both trainings: tokens per second, MFU and peak memory; a sample is one picture
seen and one drawn, as large as they can be.

MFU counts 6 x (parameters of one set of weights, both embedding matrices included) x tokens + 12 x head width x heads x
layers x sum of squared sample lengths, over the card's dense bf16 peak of its data sheet; recomputation does not count.
``--small`` runs all of it on tiny sizes on any machine, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.bagel.world import config_of
from bettersynth.config.train import StageConfig
from bettersynth.models.bagel.autoencoder import AutoEncoder
from bettersynth.models.bagel.config import BagelConfig
from bettersynth.models.bagel.context import Context, read_text
from bettersynth.models.bagel.draw import Drawing, DrawSettings, decode, draw, start_noise
from bettersynth.models.bagel.family import FAMILY
from bettersynth.models.bagel.glue import PositionTable
from bettersynth.models.bagel.model import BagelModel
from bettersynth.models.bagel.sizes import image_tokens, preset_config
from bettersynth.train import lora, optim
from bettersynth.train.machines import GIB, card_tflops
from bettersynth.train.preset import load_preset, stage_settings

RESULTS = Path(__file__).parents[1] / "results"
Facts = dict[str, Any]
_TRAINED_BYTES, _KEPT_BYTES = 18, 24 * GIB
"""Weight, gradient, two averages in float32 and a bf16 copy; activations and the rest of a sample of 9,000 tokens."""


def build(config: BagelConfig, device: torch.device, dtype: torch.dtype) -> BagelModel:
    """Random weights made on the device itself; the autoencoder in float32."""
    with torch.device("meta"):
        model, autoencoder = BagelModel(config).to(dtype), AutoEncoder(config.vae)
    model, autoencoder = model.to_empty(device=device), autoencoder.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        for part in (model, autoencoder):
            for name, parameter in part.named_parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.02, generator=generator)
                else:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for module in model.modules():
        if isinstance(module, PositionTable):
            module.fill()
    model.set_autoencoder(autoencoder)
    return model.eval()


def timed(device: torch.device, work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, peak GiB of the device (0 on a CPU), and the result."""
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    begun = time.perf_counter()
    result = work()
    if is_cuda:
        torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) / GIB if is_cuda else 0.0
    return time.perf_counter() - begun, round(peak, 2), result


def drawing(config: BagelConfig, device: torch.device, steps: int) -> Facts:
    """One picture as large as the table of positions allows; the second run counts."""
    model = build(config, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    side, context = config.max_latent_size, Context()
    read_text(model, [context], [list(range(64))])
    picture = Drawing(side, side, start_noise(model, side, side, 0), context, Context(), context)
    settings = DrawSettings(num_timesteps=steps)
    for _ in range(2):
        seconds, peak, latents = timed(device, lambda: draw(model, [picture], settings))
    decode_s, decode_peak, _ = timed(device, lambda: decode(model, latents[0], side, side))
    return {
        "pixels": side * config.latent_stride_px,
        "steps": steps,
        "seconds": round(seconds, 2),
        "decode_seconds": round(decode_s, 2),
        "peak_gib": max(peak, decode_peak),
        "asked": "at most 5 s on an H200",
    }


def training(config: BagelConfig, stage: StageConfig, device: torch.device, steps: int) -> Facts:
    """Steps of one sample each; the first two warm up."""
    model = build(config, device, torch.float32 if stage.lora is None else torch.bfloat16).train()
    if stage.lora is not None:
        names = lora.attach(stage, FAMILY, model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
            if name in names:
                parameter.data = parameter.data.float()
        model.to(device)
    FAMILY.enable_gradient_checkpointing(model)
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = optim.build_optimizer(named, stage)
    length = min(image_tokens(config) + 128, stage.max_length)
    batch = {name: tensor.to(device) for name, tensor in FAMILY.example_batch(model, 1, length).items()}

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            output = FAMILY.losses(model, batch)
        output.total().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(2):
        step()
    seconds, peak, _ = timed(device, lambda: [step() for _ in range(steps)])
    tokens = len(batch["packed_position_ids"])
    flops = FAMILY.training_flops(model, tokens, tokens**2)
    tflops = card_tflops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    facts = {
        "layers": config.llm.num_hidden_layers,
        "tokens_per_step": tokens,
        "tokens_per_s": round(tokens * steps / seconds),
        "model_tflops_per_s": round(flops * steps / seconds / 1e12, 2),
        "peak_gib": peak,
        "asked": "MFU of at least 0.45",
    }
    return {**facts, "mfu": None if tflops is None else round(flops * steps / seconds / 1e12 / tflops, 3)}


def fitting(config: BagelConfig, device: torch.device) -> BagelConfig:
    """The same with as many layers as can be trained in full on the card."""
    if device.type != "cuda":
        return config
    room = torch.cuda.get_device_properties(device).total_memory * 0.92 - _KEPT_BYTES
    with torch.device("meta"):
        one, two = (BagelModel(replace(config, llm=replace(config.llm, num_hidden_layers=n))) for n in (1, 2))
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (one, two)]
    layers = 1 + int((room / _TRAINED_BYTES - sizes[0]) // (sizes[1] - sizes[0]))
    layers = max(1, min(layers, config.llm.num_hidden_layers))
    return replace(config, llm=replace(config.llm, num_hidden_layers=layers))


def main(words: Sequence[str]) -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bagel gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes, on the CPU where there is no card")
    parser.add_argument("--steps", type=int, default=50, help="points in time of the picture (default: 50)")
    parser.add_argument("--only", choices=("draw", "lora", "full"), help="one of the three")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where JSON goes")
    args = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not args.small:
        parser.error("there is no CUDA device here; --small runs tiny sizes on a CPU")
    config = config_of("tiny") if args.small else preset_config("bagel_7b")
    places = {"data": "-", "init_from": "-", "max_samples": 1}
    stages = {
        "lora": stage_settings(load_preset("bagel_7b"), 2, {**places, "lora": {"rank": 64}}),
        "full": stage_settings(load_preset("bagel_7b"), 2, places),
    }
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    facts: Facts = {"benchmark": "bagel-gpu", "device": name, "torch": torch.__version__}
    for part in (args.only,) if args.only else ("draw", "lora", "full"):
        if part == "draw":
            facts[part] = drawing(config, device, args.steps)
        else:
            sizes = fitting(config, device) if part == "full" else config
            facts[part] = training(sizes, stages[part], device, 2 if args.small else 8)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(json.dumps(facts, indent=1))
    args.results.mkdir(parents=True, exist_ok=True)
    file = "bagel-gpu-small.json" if args.small else "bagel-gpu.json"
    (args.results / file).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0
