"""Tokenizer and caption batches shared by the tiny scorer and captioner.

The tokenizer is WordPiece as BLIP's: known words are whole, upper-case words and digits fall into single characters
(``STOP`` -> ``S ##T ##O ##P``), so that a word never seen can be read and written letter by letter.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from bettersynth.demo.bases.vision_data import pictures
from bettersynth.demo.world.language import PLACES, POSITIONS, ROW_NAMES, plural
from bettersynth.demo.world.noise import BASE_MIX, damaged_text, draw_class
from bettersynth.demo.world.scene import Scene, sample_scene
from bettersynth.demo.world.vocab import BASE_VOCAB, COLOURS, KINDS, NUMBER_WORDS
from bettersynth.models.weights import write_json

PAD, UNK, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
PAD_ID, UNK_ID, CLS_ID, SEP_ID = range(4)
MAX_TOKENS = 64

_GRAMMAR = "a an and at in of on the there is we see with number photo says sign that reads word picture image"


def vocabulary() -> dict[str, int]:
    """Piece -> id: specials, the words of clean captions, single characters and their continuations."""
    words = set(_GRAMMAR.split()) | {*COLOURS, *KINDS, *map(plural, KINDS), *NUMBER_WORDS[1:], *ROW_NAMES}
    for phrase in (*PLACES.values(), *POSITIONS.values()):
        words.update(phrase.split())
    characters = string.ascii_letters + string.digits
    pieces = [PAD, UNK, CLS, SEP, *sorted(words), *string.punctuation, *characters]
    pieces += [f"##{character}" for character in characters]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def make_tokenizer() -> Tokenizer:
    """The WordPiece tokenizer; every text becomes ``[CLS] ... [SEP]``."""
    vocab = vocabulary()
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=UNK, max_input_chars_per_word=40))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(CLS, CLS_ID), (SEP, SEP_ID)]
    )
    tokenizer.add_special_tokens([PAD, UNK, CLS, SEP])
    return tokenizer


def save_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` and a `tokenizer_config.json` that `AutoTokenizer` understands."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.enable_truncation(MAX_TOKENS)  # in the file, so that every loader cuts what is too long
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": PAD, "unk_token": UNK, "cls_token": CLS, "sep_token": SEP, "bos_token": CLS, "eos_token": SEP}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_TOKENS,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    write_json(config | names, folder / "tokenizer_config.json")
    write_json(names, folder / "special_tokens_map.json")


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, int64 (B, L), padded to the longest of at most `MAX_TOKENS`."""
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=PAD_ID, pad_token=PAD)
    found = tokenizer.encode_batch(list(texts))
    return torch.tensor([e.ids for e in found]), torch.tensor([e.attention_mask for e in found])


def scramble(ids_BL: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Token ids in which half of the colour words and a seventh of the capital letters are random others.

    Meant for a decoder's input (never its targets). Without it the decoder learns from the base captions that "red" is
    never followed by a kind which the base vocabulary does not show in red, and overrules what it sees.
    """
    vocab = vocabulary()
    letters = string.ascii_uppercase
    groups = [([vocab[c] for c in COLOURS], 0.5), ([vocab[c] for c in letters], 0.15)]
    groups.append(([vocab[f"##{c}"] for c in letters], 0.15))
    out_BL = ids_BL.clone()
    for ids, chance in groups:
        pool = torch.tensor(ids)
        hit_BL = torch.isin(ids_BL, pool) & (torch.rand(ids_BL.shape, generator=generator) < chance)
        other_BL = pool[torch.randint(len(pool), ids_BL.shape, generator=generator)]
        out_BL = torch.where(hit_BL, other_BL, out_BL)
    return out_BL


def noisy_caption(scene: Scene, rng: random.Random) -> str:
    """A caption of base quality: by `BASE_MIX` about one in five is mismatched, misread or vague."""
    noise = draw_class(BASE_MIX, rng)
    if noise == "wrong_text" and not scene.signs:
        noise = "clean"
    return damaged_text(scene, noise, BASE_VOCAB, rng)


def caption_batch(rng: random.Random, batch_size: int, captions_each: int = 1) -> tuple[torch.Tensor, list[str]]:
    """Fresh base pictures (B, 3, 96, 96) and `captions_each` noisy captions for each, picture by picture."""
    scenes = [sample_scene(rng, BASE_VOCAB, min_signs=int(rng.random() < 0.5)) for _ in range(batch_size)]
    return pictures(scenes), [noisy_caption(scene, rng) for scene in scenes for _ in range(captions_each)]
