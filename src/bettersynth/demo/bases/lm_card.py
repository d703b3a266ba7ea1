"""The model card and score table of the tiny language model, written from what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from bettersynth.demo.bases.lm_eval import Scores
from bettersynth.demo.bases.lm_train import Plan


def table(scores: dict[str, Scores]) -> str:
    """Markdown table: one task a row, one vocabulary and raster form a column; share of exact answers."""
    tasks = sorted({task for found in scores.values() for task in found}, key=lambda task: (task.split("/")[0], task))
    lines = [" | ".join(["| task", *scores, "asked |"]), "| --- " * (len(scores) + 2) + "|"]
    for task in tasks:
        cells = [found.get(task, (0, 0)) for found in scores.values()]
        shares = [f"{right / asked:.3f}" if asked else "-" for right, asked in cells]
        lines.append(" | ".join([f"| {task}", *shares, f"{sum(asked for _, asked in cells)} |"]))
    return "\n".join(lines)


def card(plans: Sequence[Plan], num_weights: int, cpu_s: float, scores: dict[str, Scores]) -> str:
    """The README of the model's folder."""
    first, second = plans
    num_exchanges = sum(plan.num_steps * plan.num_scenes * plan.num_turns for plan in plans)
    return f"""# gemma-tiny-it

Language model of the demo: a Gemma (Hugging Face layout, {num_weights:,} parameters, stored in half precision)
with a tokenizer of its own in Gemma's format. Not a model of Google. `hidden_act` "gelu" means the exact (erf) GELU.

* **Made by** `python -m bettersynth.demo.bases.lm --steps {first.num_steps} --seed {first.seed}`
  in {cpu_s / 60:.0f} CPU minutes on one thread.
* **Data**: at least {num_exchanges:,} exchanges in Gemma's chat template, mostly about freshly drawn scenes of the
  demo world, base vocabulary only: captions, open questions (with and without the OCR tokens of an imperfect reader),
  yes-no questions, multiple choice answered by letter; and a few exchanges without a picture. Where a picture's 36
  image tokens will stand there is a 6 x 6 raster of word embeddings, one word a patch or a mixture of the words that
  are true of it, with noise. It never saw a sign word or a (colour, kind) combination of the evaluation; so that it
  can say one all the same, in the second round half of the scenes have words like "size" where a colour or a kind
  should be.
* **Training**: {first.num_steps:,} steps of AdamW, the first half of a cosine of {first.steps:,} (peak rate
  {first.lr:g}). It first only finds the letter of a given text, then reads rasters, then answers multiple choice.
  Auxiliary losses read half-way results (a patch's place, the answer at the question mark, which option is right) from
  inner layers; their heads are thrown away. Then {second.num_steps:,} steps (peak rate {second.lr:g}) in which some
  rasters spell signs and numbers wrong, so that it learns to use the OCR tokens. A model trained to the end of the
  long cosine read these scenes better but was harder to align in stage 1: what is shipped is what a projector learns
  to speak to.
* **Tokenizer**: every word of the demo world is one token; upper-case letters and digits never merge, so unseen
  words are spelt.
* **Scores** (`python -m bettersynth.demo.bases.lm --evaluate`): share of exact greedy answers on fresh scenes. "short"
  and "ocr" are open questions without and with OCR tokens, "letter" multiple choice with four options (now and then
  fewer); "hard" is one word a patch, "blurred" uneven mixtures in which letters run into each other.

{table(scores)}
"""
