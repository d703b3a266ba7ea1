"""Models that look at text alone: tokenizers, language identifiers, n-gram language models; how they are loaded.

Callers see only the three protocols. A model is named by ``fake``, by a local file or folder, and for languages also by
``builtin``; nothing is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bettersynth.core.errors import ConfigError, MissingExtraError
from bettersynth.core.lang import t
from bettersynth.core.seed import derive_seed

_PACKAGES = {"sentencepiece": "sentencepiece", "fasttext": "fasttext-predict", "kenlm": "kenlm"}


@runtime_checkable
class TextTokenizer(Protocol):
    """Cuts texts into tokens."""

    def tokenize(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of each text, without special tokens."""
        ...


@runtime_checkable
class LanguageIdentifier(Protocol):
    """Says in which language a text is written."""

    def identify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """(language code, confidence 0 to 1) of each text."""
        ...


@runtime_checkable
class SentenceScorer(Protocol):
    """Says how likely a sequence of words is."""

    def log10(self, words: Sequence[str]) -> float:
        """Log10 probability of the words as one sentence, begin and end included."""
        ...


class FakeTokenizer:
    """Words and marks."""

    def tokenize(self, texts: Sequence[str]) -> list[list[str]]:
        """Runs of word characters, and every other visible character by itself."""
        return [re.findall(r"\w+|[^\w\s]", text) for text in texts]


class FakeLanguages:
    """A language drawn by the text's hash."""

    def identify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """One of three codes and a confidence."""
        seeds = [derive_seed("language", text) for text in texts]
        return [(("en", "zh", "fr")[seed % 3], seed % 1001 / 1000) for seed in seeds]


class FakeSentences:
    """Every word is as likely as its length is short."""

    def log10(self, words: Sequence[str]) -> float:
        """Minus a quarter per character, and minus one for the end."""
        return -sum(len(word) for word in words) / 4 - 1.0


class FileTokenizer:
    """A ``tokenizer.json`` of the tokenizers library, or a sentencepiece model."""

    def __init__(self, path: Path) -> None:
        self._pieces: Any = None
        self._tokenizer: Any = None
        if path.suffix == ".model":
            self._pieces = _import("sentencepiece", t("a sentencepiece model")).SentencePieceProcessor(str(path))
        else:
            self._tokenizer = _import("tokenizers", t("a tokenizer")).Tokenizer.from_file(str(path))

    def tokenize(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of each text, without special tokens."""
        if self._pieces is not None:
            return [list(self._pieces.encode(text, out_type=str)) for text in texts]
        return [list(found.tokens) for found in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]


class FastTextLanguages:
    """fastText's ``lid.176.bin`` or ``.ftz``; texts are lower-cased and put on one line, as in Data-Juicer."""

    def __init__(self, path: Path) -> None:
        self._model = _import("fasttext", t("a fastText model")).load_model(str(path))

    def identify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The likeliest language of each text."""
        found = []
        for text in texts:
            labels, scores = self._model.predict(text.lower().replace("\n", " "))
            found.append((str(labels[0]).replace("__label__", ""), float(scores[0])))
        return found


class KenlmSentences:
    """A KenLM model, binary or ARPA, through the kenlm package."""

    def __init__(self, path: Path) -> None:
        self._model = _import("kenlm", t("a KenLM model")).Model(str(path))

    def log10(self, words: Sequence[str]) -> float:
        """Log10 probability of the sentence."""
        return float(self._model.score(" ".join(words)))


class ArpaSentences:
    """A back-off n-gram model in ARPA text form, read by ourselves: for small models where kenlm is not installed.

    Source: the ARPA format as SRILM's ``ngram-format(5)`` describes it; scoring as in Katz, 1987.
    """

    def __init__(self, path: Path) -> None:
        self._grams: dict[tuple[str, ...], tuple[float, float]] = {}
        self._order = 1
        size = 0
        for line in path.read_text(encoding="utf-8").splitlines():
            if match := re.fullmatch(r"\\(\d+)-grams:", line.strip()):
                size = int(match[1])
                self._order = max(self._order, size)
            elif size and len(parts := line.split()) > size:
                back = float(parts[size + 1]) if len(parts) > size + 1 else 0.0
                self._grams[tuple(parts[1 : size + 1])] = (float(parts[0]), back)
        if ("<unk>",) not in self._grams:
            self._grams["<unk>",] = (-100.0, 0.0)

    def log10(self, words: Sequence[str]) -> float:
        """Log10 probability of the sentence; unknown words count as ``<unk>``."""
        known = [word if (word,) in self._grams else "<unk>" for word in (*words, "</s>")]
        before: tuple[str, ...] = ("<s>",)
        total = 0.0
        for word in known:
            total += self._one(before[-(self._order - 1) :] if self._order > 1 else (), word)
            before = (*before, word)
        return total

    def _one(self, before: tuple[str, ...], word: str) -> float:
        found = self._grams.get((*before, word))
        if found is not None:
            return found[0]
        return self._grams.get(before, (0.0, 0.0))[1] + self._one(before[1:], word)


@lru_cache(maxsize=8)
def load_tokenizer(model: str) -> TextTokenizer:
    """A tokenizer: ``fake``, a ``tokenizer.json``, a folder that holds one, or a sentencepiece ``.model`` file.

    Raises:
        ConfigError: no such file. MissingExtraError: its library is not installed.
    """
    if model == "fake":
        return FakeTokenizer()
    path = Path(model).expanduser()
    return FileTokenizer(_file(path / "tokenizer.json" if path.is_dir() else path, "tokenizer.json, *.model"))


@lru_cache(maxsize=8)
def load_languages(model: str) -> LanguageIdentifier:
    """A language identifier: ``fake``, ``builtin`` (ours, approximate) or a fastText file; raises like above."""
    if model == "fake":
        return FakeLanguages()
    if model == "builtin":
        from bettersynth.infer.language_id import BuiltinLanguages

        return BuiltinLanguages()
    return FastTextLanguages(_file(Path(model).expanduser(), "lid.176.bin, lid.176.ftz, builtin"))


@lru_cache(maxsize=8)
def load_sentences(model: str) -> SentenceScorer:
    """An n-gram model: ``fake``, a KenLM file, or an ARPA file (read by ourselves); raises like above."""
    if model == "fake":
        return FakeSentences()
    path = _file(Path(model).expanduser(), "*.arpa, *.arpa.bin")
    return ArpaSentences(path) if path.suffix == ".arpa" else KenlmSentences(path)


def _file(path: Path, expected: str) -> Path:
    if not path.is_file():
        raise ConfigError(t("no model file here"), got=str(path), expected=expected)
    return path


def _import(name: str, what: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = MissingExtraError(what, "train", missing=error.name)
        if name in _PACKAGES:  # no extra of ours brings these: they are built from source on many machines
            missing = MissingExtraError(what, name, missing=error.name)
            missing.hint = f"pip install {_PACKAGES[name]}"
        raise missing from error
