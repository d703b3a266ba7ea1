"""The tiny tokenizer: Gemma's format (BPE with byte fallback and no pre-tokenizer), made from a word list.

Nothing is learned from frequencies: merges exist only for listed words, so that

* every listed word is one token, with and without the leading space mark (``red`` and ``▁red``);
* upper-case letters and digits never merge, also not with the space mark: a letter has the same id at the
  start, middle and end of a word, and a word never seen before is spelt letter by letter.

The Gemma class of transformers 5 rebuilds its tokenizer from vocabulary and merges and ignores a
pre-tokenizer found in the file, so all of this has to be (and is) expressed in the merges alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

SPACE = "▁"
PAD_ID, EOS_ID, BOS_ID, UNK_ID, MASK_ID, START_ID, END_ID, NEWLINE_ID = range(8)
SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
_NUM_BYTES = 256
_NO_LIMIT = 1000000000000000019884624838656  # what transformers writes for "no maximum length"


def build_vocabulary(words: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Make vocabulary and merges in which every given word is a single token.

    Words are merged pair by pair, most frequent pair first (ties by spelling), as in ordinary BPE training with
    every word seen once. Last come the merges of the space mark with each whole word, so that they
    cannot disturb the inside of a word.

    Args:
        words: words of lower-case letters, at most the first letter upper-case.

    Returns:
        token -> id (specials 0-6, newline 7, bytes, single characters, merged pieces) and the merges in
        order of rank.
    """
    listed = sorted({word for word in words if len(word) > 1 and word.isalpha() and word[1:].islower()})
    merges: list[tuple[str, str]] = []
    pieces = {word: list(word) for word in listed}
    while pair := _commonest_pair(pieces.values()):
        merges.append(pair)
        for parts in pieces.values():
            _merge(parts, pair)
    merges += [(SPACE, word) for word in ["a", *listed]]
    tokens = [*SPECIALS, "\n", *(f"<0x{byte:02X}>" for byte in range(_NUM_BYTES)), SPACE]
    tokens += [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens += ["".join(pair) for pair in merges]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges


def _commonest_pair(words: Iterable[list[str]]) -> tuple[str, str] | None:
    counts = Counter(pair for parts in words for pair in pairwise(parts))
    return min(counts, key=lambda pair: (-counts[pair], pair)) if counts else None


def _merge(parts: list[str], pair: tuple[str, str]) -> None:
    index = 0
    while index < len(parts) - 1:
        if (parts[index], parts[index + 1]) == pair:
            parts[index : index + 2] = ["".join(pair)]
        index += 1


def write_tokenizer(folder: Path, words: Iterable[str]) -> int:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json``.

    Args:
        folder: where to write; made if missing.
        words: words that become single tokens.

    Returns:
        The number of ids.
    """
    vocab, merges = build_vocabulary(words)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "tokenizer.json": _tokenizer_json(vocab, merges),
        "tokenizer_config.json": _tokenizer_config(),
        "special_tokens_map.json": {
            "additional_special_tokens": list(SPECIALS[START_ID : END_ID + 1]),
            **{f"{name}_token": _plain_token(f"<{name}>") for name in ("bos", "eos", "pad", "unk")},
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(vocab)


def _plain_token(content: str) -> dict[str, Any]:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def _added_tokens() -> list[dict[str, Any]]:
    return [{"id": index, **_plain_token(token), "special": True} for index, token in enumerate(SPECIALS)]


def _tokenizer_json(vocab: dict[str, int], merges: list[tuple[str, str]]) -> dict[str, Any]:
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    second_bos = {"SpecialToken": {"id": "<bos>", "type_id": 1}}
    first, second = ({"Sequence": {"id": name, "type_id": index}} for index, name in enumerate("AB"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first],
            "pair": [bos, first, second_bos, second],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS_ID], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [list(pair) for pair in merges],
        },
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(token.pop("id")): token for token in _added_tokens()},
        "additional_special_tokens": list(SPECIALS[START_ID : END_ID + 1]),
        "bos_token": "<bos>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<eos>",
        "mask_token": "<mask>",
        "model_max_length": _NO_LIMIT,
        "pad_token": "<pad>",
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }
