"""BLEU, ROUGE, METEOR and BERTScore against their formulas, with data by path and clear errors without."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from bettersynth.core.errors import DataError, MissingExtraError
from bettersynth.eval.generation import texts as texts_module
from bettersynth.eval.generation.files import matched
from bettersynth.eval.generation.texts import WORDNET_FILES, bertscore, bleu, meteor, rouge, score_texts

SAID = ["a red ball on a blue table", "two white cups at night", "the car"]
WANTED = [
    ["a red ball on the blue table", "one red ball"],
    ["two white cups in the snow"],
    ["a tree ; the sign says GO"],
]


def _ngrams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _plain_bleu(said, wanted):
    """Corpus BLEU-4 with exponential smoothing of orders without a match, as sacreBLEU's default does it."""
    log, smooth = 0.0, 1.0
    for n in range(1, 5):
        right = total = 0
        for text, refs in zip(said, wanted, strict=True):
            got = _ngrams(text.split(), n)
            most = Counter()
            for ref in refs:
                most |= _ngrams(ref.split(), n)
            right, total = right + (got & most).total(), total + got.total()
        if not right:
            smooth *= 2
        log += math.log((right or 1 / smooth) / total) / 4
    length = sum(len(text.split()) for text in said)
    near = sum(
        min((abs(len(r.split()) - len(t.split())), len(r.split())) for r in refs)[1]
        for t, refs in zip(said, wanted, strict=True)
    )
    return 100 * math.exp(log) * min(1.0, math.exp(1 - near / length))


def test_bleu():
    pytest.importorskip("sacrebleu")
    found = bleu(SAID, WANTED)
    assert found.value == pytest.approx(_plain_bleu(SAID, WANTED), rel=1e-6)
    assert "smooth:exp" in found.settings and bleu(["a b c d"], [["a b c d"]]).value == pytest.approx(100.0)


def _lcs(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def _f1(common, got, wanted):
    return 2 * common / (got + wanted) if common else 0.0


def test_rouge():
    pytest.importorskip("rouge_score")
    one, two, longest = rouge(SAID, WANTED)
    for index, (text, refs) in enumerate(zip(SAID, WANTED, strict=True)):
        said, kept = text.split(), [r.lower().replace(" ;", "").split() for r in refs]
        assert longest.per_text[index] == pytest.approx(max(_f1(_lcs(said, r), len(said), len(r)) for r in kept))
        for n, score in ((1, one), (2, two)):
            values = [_f1((_ngrams(said, n) & _ngrams(r, n)).total(), len(said) - n + 1, len(r) - n + 1) for r in kept]
            assert score.per_text[index] == pytest.approx(max(values))
    assert one.value == pytest.approx(sum(one.per_text) / 3) and one.scale == 1.0


def _wordnet(folder: Path, synsets) -> Path:
    """A WordNet 3 database with these noun synsets and nothing else."""
    folder.mkdir()
    for name in WORDNET_FILES:
        (folder / name).write_text("", encoding="ascii")
    (folder / "lexnames").write_text("00\tadj.all\t3\n01\tadj.pert\t3\n02\tadv.all\t4\n03\tnoun.Tops\t1\n", "ascii")
    for name in ("data.adj", "data.noun"):
        (folder / name).write_text("  1 WordNet 3.0 Copyright\n", encoding="ascii")
    data, index = (folder / "data.noun").read_text(encoding="ascii"), ""
    for words in synsets:
        offset = len(data)
        shown = " ".join(f"{word} 0" for word in words)
        data += f"{offset:08d} 03 n {len(words):02x} {shown} 000 | made up  \n"
        for word in words:
            index += f"{word} n 1 0 1 0 {offset:08d}  \n"
    (folder / "data.noun").write_text(data, encoding="ascii")
    (folder / "index.noun").write_text(index, encoding="ascii")
    return folder


def test_meteor_counts_words_stems_and_synonyms(tmp_path):
    pytest.importorskip("nltk")
    folder = _wordnet(tmp_path / "wordnet", [("car", "auto")])
    said, wanted = ["the auto stopped", "the cats sleep", "blue"], [["the car stopped"], ["the cat sleeps"], ["red"]]
    found = meteor(said, wanted, wordnet=folder)
    whole = 1 - 0.5 * (1 / 3) ** 3  # three matches in one chunk
    assert found.per_text == pytest.approx((whole, whole, 0.0))
    (tmp_path / "no").mkdir()
    other = meteor(said[:1], wanted[:1], wordnet=_wordnet(tmp_path / "empty", [("car",)]))
    f_mean = (2 / 3) * (2 / 3) / (0.9 * (2 / 3) + 0.1 * (2 / 3))  # two matches, two chunks
    assert other.value == pytest.approx(f_mean * (1 - 0.5 * (2 / 2) ** 3))


def test_chinese_counts_by_characters():
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    said, wanted = ["草地上有一只红色的猫 GO"], [["草地上有一只蓝色的猫 GO"]]
    assert bleu(wanted[0], wanted).value == pytest.approx(100.0) and "tok:zh" in bleu(said, wanted).settings
    one, two, longest = rouge(said, wanted)
    assert one.value == longest.value == pytest.approx(10 / 11) and two.value == pytest.approx(8 / 10)
    assert "Chinese" in one.settings and "tok:13a" in bleu(SAID, WANTED).settings


def test_meteor_without_wordnet_says_what_is_missing(tmp_path):
    pytest.importorskip("nltk")
    with pytest.raises(DataError, match=r"data\.noun"):
        meteor(["a"], [["a"]], wordnet=tmp_path)
    with pytest.raises(DataError, match="--wordnet DIR"):
        score_texts(["a"], [["a"]], metrics=("meteor",))
    with pytest.raises(DataError, match="--bert DIR"):
        score_texts(["a"], [["a"]], metrics=("bertscore",))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = dict.fromkeys(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *" ".join([*SAID, *WANTED[0], *WANTED[1], *WANTED[2]]).split()]
    )
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    return folder


def _plain_bertscore(folder, said, wanted, layer):
    """Greedy matching of one layer's unit vectors; the two marker tokens match too but do not count."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        sides = []
        for text in (said, wanted):
            hidden = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[layer][0]
            sides.append(torch.nn.functional.normalize(hidden, dim=-1))
        similar = sides[0] @ sides[1].T
    precision = similar.max(1).values[1:-1].mean().item()
    recall = similar.max(0).values[1:-1].mean().item()
    return precision, recall, 2 * precision * recall / (precision + recall)


def test_bertscore(bert):
    pytest.importorskip("bert_score")
    found = {score.name: score for score in bertscore([*SAID, " "], [*WANTED, ["a tree"]], model=bert, num_layers=2)}
    for index, (text, refs) in enumerate(zip(SAID, WANTED, strict=True)):
        best = max((_plain_bertscore(bert, text, ref, 2) for ref in refs), key=lambda score: score[2])
        got = [found[f"bertscore_{name}"].per_text[index] for name in ("precision", "recall", "f1")]
        assert got == pytest.approx(best, abs=1e-4)
    assert found["bertscore_f1"].per_text[3] == 0.0 and "layer 2" in found["bertscore_f1"].settings


def test_bertscore_without_a_model_says_so(tmp_path):
    with pytest.raises(DataError, match="never downloaded"):
        bertscore(["a"], [["a"]], model=tmp_path / "gone")


def test_texts_must_match_and_packages_be_there(monkeypatch):
    pytest.importorskip("sacrebleu")
    for said, wanted in (([], []), (["a"], []), (["a"], [[]])):
        with pytest.raises(DataError):
            bleu(said, wanted)

    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(texts_module.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"bettersynth\[metrics\]"):
        rouge(["a"], [["a"]])


def test_empty_lines_are_empty_answers_and_pair_with_their_own_reference(tmp_path: Path) -> None:
    said, wanted = tmp_path / "said.txt", tmp_path / "wanted.txt"
    said.write_text("one\n\nthree\u2028still three\n", encoding="utf-8")
    wanted.write_text("1\n2\n3", encoding="utf-8")
    assert matched(said, wanted) == (["one", "", "three\u2028still three"], [["1"], ["2"], ["3"]])
    lines = tmp_path / "said.jsonl"
    lines.write_text('{"text": "a\u2028b"}\n\n{"text": "c"}\n', encoding="utf-8")
    wanted.write_text("1\n2\n", encoding="utf-8")
    assert matched(lines, wanted)[0] == ["a\u2028b", "c"]
    said.write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        matched(said, wanted)
