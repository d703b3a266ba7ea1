"""Train and evaluate the tiny language model of the demo, on base vocabulary only, on one CPU thread.

    python -m bettersynth.demo.bases.lm --out weights/gemma-tiny-it      # about half an hour of CPU
    python -m bettersynth.demo.bases.lm --evaluate                       # scores by task, as a table

Everything is seeded: the same versions of the libraries on the same processor give the same weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from bettersynth.demo.bases import lm_card, lm_model
from bettersynth.demo.bases.lm_data import Encoder
from bettersynth.demo.bases.lm_eval import Scores, evaluate
from bettersynth.demo.bases.lm_train import Plan, rounds, train
from bettersynth.demo.bases.lm_turns import extra_words
from bettersynth.demo.bases.tokenizer import write_tokenizer
from bettersynth.demo.world.language import vocabulary_words
from bettersynth.demo.world.vocab import BASE_VOCAB, EVAL_VOCAB

NAME = "gemma-tiny-it"
FOLDER = Path(__file__).parent.parent / "weights" / NAME
EVALUATED_FORMS = ("hard", "blurred")


def main(argv: list[str] | None = None) -> int:
    """Read the command line and train or evaluate."""
    parser = argparse.ArgumentParser(prog="python -m bettersynth.demo.bases.lm", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="the model's folder")
    parser.add_argument("--steps", type=int, default=4000, help="steps of the first round (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, scenes and noise (default 0)")
    parser.add_argument("--evaluate", action="store_true", help="only evaluate what is there")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if not arguments.evaluate:
        make(arguments.out, rounds(arguments.steps, arguments.seed))
    print(lm_card.table(score(arguments.out)))
    return 0


def make(folder: Path, plans: tuple[Plan, ...]) -> None:
    """Write the tokenizer, train the model, each round from the stored weights of the last, write the model card."""
    num_ids = write_tokenizer(folder, {*vocabulary_words(), *extra_words()})
    encoder = load_encoder(folder)
    model, cpu_s = lm_model.build(num_ids, plans[0].seed), 0.0
    for plan in plans:
        cpu_s += train(model.train(), encoder, plan)
        lm_model.save(model, folder)
        model = lm_model.load(folder)
    print(f"trained in {cpu_s / 60:.1f} CPU minutes", file=sys.stderr)
    num_weights = sum(weight.numel() for weight in model.parameters())
    (folder / "README.md").write_text(lm_card.card(plans, num_weights, cpu_s, score(folder)), encoding="utf-8")


def load_encoder(folder: Path) -> Encoder:
    """The tokenizer of a written folder."""
    return Encoder(Tokenizer.from_file(str(folder / "tokenizer.json")))


def score(folder: Path, num_batches: int = 8) -> dict[str, Scores]:
    """Scores of a written folder: "VOCABULARY FORM" -> task -> (right, asked)."""
    model, encoder = lm_model.load(folder), load_encoder(folder)
    return {
        f"{vocab.name} {form}": evaluate(model, encoder, vocab, form, num_batches=num_batches)
        for vocab in (BASE_VOCAB, EVAL_VOCAB)
        for form in EVALUATED_FORMS
    }


if __name__ == "__main__":
    raise SystemExit(main())
