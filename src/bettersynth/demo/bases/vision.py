"""Train and evaluate the tiny vision base models of the demo, on base vocabulary only, on one CPU thread.

    python -m bettersynth.demo.bases.vision all --out weights        # about an hour of CPU
    python -m bettersynth.demo.bases.vision scorer --out weights     # one of: tower clip scorer captioner
    python -m bettersynth.demo.bases.vision all --out weights --evaluate   # scores on held-out pictures, as JSON

Everything is seeded: the same versions of the libraries on the same processor give the same weights.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from transformers import BlipForConditionalGeneration, CLIPModel

from bettersynth.demo.bases import captioner, scorer
from bettersynth.demo.bases import vision_towers as towers
from bettersynth.demo.bases.vision_data import HELD_OUT_SEED, pictures
from bettersynth.demo.bases.vision_text import PAD_ID, encode, make_tokenizer
from bettersynth.demo.world.noise import POOL_MIX, make_pair
from bettersynth.demo.world.vocab import BASE_VOCAB, EVAL_VOCAB

PARTS = ("tower", "clip", "scorer", "captioner")
WEIGHTS = Path(__file__).parent.parent / "weights"
_PAIRS_PER_CLASS = 256


def main() -> None:
    """Read the command line and train or evaluate."""
    parser = argparse.ArgumentParser(prog="python -m bettersynth.demo.bases.vision", description=__doc__)
    parser.add_argument("part", choices=("all", *PARTS))
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the model folders")
    parser.add_argument("--evaluate", action="store_true", help="only evaluate what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = PARTS if arguments.part == "all" else (arguments.part,)
    for part in parts:
        if arguments.evaluate:
            print(json.dumps({part: evaluate(part, arguments.out)}))
        else:
            train(part, arguments.out)


def train(part: str, out: Path) -> None:
    """Train one of `PARTS`; the scorer needs the "clip" part to be there."""
    if part == "tower":
        towers.train_convnext(out / towers.CONVNEXT_NAME)
    elif part == "clip":
        towers.train_clip_vit(out / towers.CLIP_NAME)
    elif part == "scorer":
        scorer.train_scorer(out / scorer.NAME, out / towers.CLIP_NAME)
    else:
        captioner.train_captioner(out / captioner.NAME)


def evaluate(part: str, out: Path) -> dict[str, Any]:
    """Scores of one shipped model on pictures it has not seen, for base and evaluation vocabulary."""
    if part in ("tower", "clip"):
        return towers.probe(part, out)
    if part == "scorer":
        model = CLIPModel.from_pretrained(out / scorer.NAME, dtype=torch.float32).eval()
        found = {vocab.name: scorer.retrieval(model, vocab) for vocab in (BASE_VOCAB, EVAL_VOCAB)}
        return {"retrieval_at_1_of_64": found, "auc_clean_against": detection_auc("scorer", model)}
    blip = BlipForConditionalGeneration.from_pretrained(out / captioner.NAME, dtype=torch.float32).eval()
    found = {vocab.name: captioner.evaluate_captioner(blip, vocab) for vocab in (BASE_VOCAB, EVAL_VOCAB)}
    return {"greedy_captions": found, "auc_clean_against": detection_auc("captioner", blip)}


# --- noise detection --------------------------------------------------------------------------------------


def detection_auc(part: str, model: Any) -> dict[str, float]:
    """Area under the ROC curve of telling clean pairs from each noise class of the evaluation vocabulary.

    The scorer's signal is its cosine, the captioner's its mean token log-likelihood.
    """
    values = {noise: pair_scores(part, model, noise) for noise in POOL_MIX if "duplicate" not in noise}
    return {noise: round(auc(values["clean"], found), 3) for noise, found in values.items() if noise != "clean"}


@torch.no_grad()
def pair_scores(part: str, model: Any, noise: str, count: int = _PAIRS_PER_CLASS) -> torch.Tensor:
    """Signal (count,) of held-out pairs of one quality class; more is better."""
    rng = random.Random(f"{HELD_OUT_SEED} {noise}")
    pairs = [make_pair(noise, EVAL_VOCAB, rng) for _ in range(count)]
    tokenizer, found = make_tokenizer(), []
    for start in range(0, len(pairs), 64):
        part_of = pairs[start : start + 64]
        x_BCHW = pictures(pair.scene for pair in part_of)
        ids_BL, mask_BL = encode(tokenizer, [pair.text for pair in part_of])
        if part == "scorer":
            found.append(scorer.similarities(model, x_BCHW, ids_BL, mask_BL).diagonal())
        else:
            found.append(-mean_nll(model, x_BCHW, ids_BL, mask_BL))
    return torch.cat(found)


def mean_nll(
    model: BlipForConditionalGeneration, x_BCHW: torch.Tensor, ids_BL: torch.Tensor, mask_BL: torch.Tensor
) -> torch.Tensor:
    """Mean negative log-likelihood (B,) of each caption's tokens, in nats."""
    seen_BPC = model.vision_model(x_BCHW).last_hidden_state
    logits_BLV = model.text_decoder(input_ids=ids_BL, attention_mask=mask_BL, encoder_hidden_states=seen_BPC).logits
    nll_BL = torch.nn.functional.cross_entropy(
        logits_BLV[:, :-1].transpose(1, 2), ids_BL[:, 1:], reduction="none", ignore_index=PAD_ID
    )
    return nll_BL.sum(1) / mask_BL[:, 1:].sum(1)


def auc(good: torch.Tensor, bad: torch.Tensor) -> float:
    """Chance that a random good value exceeds a random bad one (ties count half)."""
    more = (good[:, None] > bad[None]).double() + 0.5 * (good[:, None] == bad[None]).double()
    return float(more.mean())


if __name__ == "__main__":
    main()
