"""BLEU, ROUGE, METEOR and BERTScore of texts against references, by the established packages (extra ``metrics``).

Data and models come by path: WordNet for METEOR, an encoder for BERTScore. Nothing is ever downloaded.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bettersynth.core.errors import DataError, MissingExtraError
from bettersynth.core.lang import t

WORDNET_FILES = (
    *("lexnames", "index.sense", "index.noun", "index.verb", "index.adj", "index.adv"),
    *("data.noun", "data.verb", "data.adj", "data.adv", "noun.exc", "verb.exc", "adj.exc", "adv.exc"),
)
"""What NLTK reads of a WordNet 3 folder; a file that is not needed for synonyms may be empty."""

_HAN = re.compile("([\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])")
"""Chinese is written without spaces; its metrics are usual over single characters, as sacreBLEU's ``zh`` has them."""

METRICS = ("bleu", "rouge", "meteor", "bertscore")
_BERT_BATCH = 32


@dataclass(frozen=True, slots=True)
class TextScore:
    """One figure and how it was computed.

    Attributes:
        name: e.g. ``rougeL``.
        value: mean over the texts; BLEU over the whole set.
        scale: largest possible value, 1 or 100.
        per_text: a value for each text; empty where there is none (BLEU).
        settings: package, version and settings.
    """

    name: str
    value: float
    scale: float
    per_text: tuple[float, ...]
    settings: str


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("text metrics"), "metrics", missing=error.name) from error


def check_texts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raise DataError unless every prediction has at least one reference, and there is one."""
    if not predictions or len(predictions) != len(references):
        raise DataError(
            t("predictions and references do not match"),
            got=f"{len(predictions)} / {len(references)}",
            expected="N / N",
        )
    without = [str(number) for number, texts in enumerate(references, 1) if not texts]
    if without:
        raise DataError(t("a question has no reference answer"), where=", ".join(without[:5]))


def _has_han(references: Sequence[Sequence[str]]) -> bool:
    return any(_HAN.search(text) for texts in references for text in texts)


class _HanTokenizer:
    """rouge-score's tokenizer (lower case, Latin letters and digits) with each Chinese character a token, too."""

    def tokenize(self, text: str) -> list[str]:
        """Tokens of a text."""
        return re.findall(f"[a-z0-9]+|{_HAN.pattern}".replace("(", "(?:"), text.lower())


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> TextScore:
    """Corpus BLEU-4 by sacreBLEU, 0-100, with its signature; references may differ in number.

    Its tokenizer is ``13a``, and ``zh`` if a reference holds Chinese.

    Source: Papineni et al. 2002; Post 2018, arXiv:1804.08771.
    """
    sacrebleu = _package("sacrebleu")
    check_texts(predictions, references)
    most = max(len(texts) for texts in references)
    columns = [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]
    scorer = sacrebleu.metrics.BLEU(tokenize="zh" if _has_han(references) else "13a")
    found = scorer.corpus_score(list(predictions), columns)
    return TextScore("bleu", float(found.score), 100.0, (), f"sacrebleu {scorer.get_signature()}")


def rouge(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, use_stemmer: bool = False
) -> list[TextScore]:
    """ROUGE-1, ROUGE-2 and ROUGE-L F1 by rouge-score, 0-1; of several references the best counts.

    Source: Lin 2004. The tokenizer keeps Latin letters and digits, and Chinese characters where a reference holds any;
    other scripts score 0.
    """
    package = _package("rouge_score.rouge_scorer")
    check_texts(predictions, references)
    kinds = ("rouge1", "rouge2", "rougeL")
    is_chinese = _has_han(references)
    scorer = package.RougeScorer(
        list(kinds), use_stemmer=use_stemmer, tokenizer=_HanTokenizer() if is_chinese else None
    )
    found = [scorer.score_multi(list(r), p) for p, r in zip(predictions, references, strict=True)]
    stemmer = "Chinese characters and words" if is_chinese else f"stemmer {'on' if use_stemmer else 'off'}"
    settings = f"rouge-score {_version('rouge-score')}, F1, {stemmer}"
    values = {kind: tuple(float(scores[kind].fmeasure) for scores in found) for kind in kinds}
    return [TextScore(kind, _mean(values[kind]), 1.0, values[kind], settings) for kind in kinds]


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]], *, wordnet: Path) -> TextScore:
    """METEOR by NLTK, 0-1: exact words, stems and WordNet synonyms; of several references the best counts.

    Args:
        predictions: texts.
        references: per text.
        wordnet: folder of a WordNet 3 database (``data.noun`` ...), e.g. ``nltk_data/corpora/wordnet``.

    Source: Banerjee & Lavie 2005; parameters alpha 0.9, beta 3, gamma 0.5.

    Raises:
        DataError: no WordNet there.
    """
    nltk_meteor = _package("nltk.translate.meteor_score")
    check_texts(predictions, references)
    words, split = read_wordnet(wordnet), _package("nltk.tokenize").wordpunct_tokenize

    def tokens(text: str) -> list[str]:
        return list(split(_HAN.sub(r" \1 ", text)))

    found = tuple(
        float(nltk_meteor.meteor_score([tokens(text) for text in texts], tokens(prediction), wordnet=words))
        for prediction, texts in zip(predictions, references, strict=True)
    )
    return TextScore("meteor", _mean(found), 1.0, found, f"nltk {_version('nltk')}, wordpunct tokens")


def read_wordnet(folder: Path) -> Any:
    """NLTK's reader over a folder.

    Raises:
        DataError: files are missing; names them.
    """
    missing = [name for name in WORDNET_FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            t("no WordNet database in this folder"),
            where=str(folder),
            got=t("missing: {names}", names=", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")),
            expected="WordNet 3.0: data.noun, index.noun, lexnames, …",
            hint=t(
                "unpack nltk's corpora/wordnet.zip, or install your system's wordnet-base package, and give its folder"
            ),
        )
    reader = _package("nltk.corpus.reader.wordnet")
    data, place = _package("nltk.data"), str(folder.resolve())
    if place not in data.path:
        data.path.append(place)  # newer versions read no folder that was not named before
    path = data.FileSystemPathPointer(place)
    with warnings.catch_warnings():  # about other languages, which are not asked for
        warnings.simplefilter("ignore", UserWarning)
        # It would look for a second copy of WordNet, to map other languages onto it.
        kind = type("OneLanguage", (reader.WordNetCorpusReader,), {"map_wn": lambda self, version="wordnet": {}})
        return kind(path, None)


def bertscore(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    model: Path,
    num_layers: int | None = None,
    device: str = "cpu",
) -> list[TextScore]:
    """BERTScore precision, recall and F1 by bert-score, without rescaling; of several references the best F1 counts.

    Args:
        predictions: texts; an empty one scores 0.
        references: per text.
        model: folder of an encoder with its tokenizer in Hugging Face layout.
        num_layers: hidden layer whose vectors are compared; the last one by default.
        device: torch device.

    Source: Zhang et al. 2020, arXiv:1904.09675.

    Raises:
        DataError: no model there.
    """
    check_texts(predictions, references)
    if not (model / "config.json").is_file():
        raise DataError(
            t("no model in this folder"),
            where=str(model),
            expected="config.json, model.safetensors, tokenizer.json",
            hint=t("BERTScore's encoder is never downloaded: give the folder of e.g. roberta-large"),
        )
    package = _package("bert_score")
    layers = num_layers or _num_layers(model)
    scorer = package.BERTScorer(model_type=str(model), num_layers=layers, device=device, batch_size=_BERT_BATCH)
    pairs = [(p, r) for p, texts in zip(predictions, references, strict=True) for r in texts]
    asked = [index for index, (p, r) in enumerate(pairs) if p.strip() and r.strip()]
    zeros = [(0.0, 0.0, 0.0)] * len(pairs)
    if asked:
        scores = scorer.score([pairs[i][0] for i in asked], [pairs[i][1] for i in asked])
        for place, values in zip(asked, zip(*(side.tolist() for side in scores), strict=True), strict=True):
            zeros[place] = tuple(values)  # type: ignore[call-overload]
    best, begin = [], 0
    for texts in references:
        best.append(max(zeros[begin : begin + len(texts)], key=lambda score: score[2]))
        begin += len(texts)
    settings = f"bert-score {_version('bert-score')}, {model.name}, layer {layers}, no idf, not rescaled"
    names = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
    columns = [tuple(column) for column in zip(*best, strict=True)]
    return [TextScore(n, _mean(c), 1.0, c, settings) for n, c in zip(names, columns, strict=True)]


def _num_layers(model: Path) -> int:
    import json

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return int(config.get("num_hidden_layers") or config.get("n_layers") or config.get("num_layers"))


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)


def score_texts(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    metrics: Sequence[str] = ("bleu", "rouge"),
    wordnet: Path | None = None,
    bert: Path | None = None,
    bert_layers: int | None = None,
    device: str = "cpu",
) -> list[TextScore]:
    """All asked-for metrics; those that lack their data are refused before anything is computed.

    Raises:
        DataError: METEOR without WordNet, BERTScore without a model, or texts that do not match.
    """
    for name, given, flag in (("meteor", wordnet, "--wordnet"), ("bertscore", bert, "--bert")):
        if name in metrics and given is None:
            raise DataError(t("{metric} needs data that is not shipped", metric=name), expected=f"{flag} DIR")
    found: list[TextScore] = []
    if "bleu" in metrics:
        found.append(bleu(predictions, references))
    if "rouge" in metrics:
        found += rouge(predictions, references)
    if "meteor" in metrics and wordnet is not None:
        found.append(meteor(predictions, references, wordnet=wordnet))
    if "bertscore" in metrics and bert is not None:
        found += bertscore(predictions, references, model=bert, num_layers=bert_layers, device=device)
    return found
