"""Models that look at text alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from bettersynth.core.errors import ConfigError, MissingExtraError
from bettersynth.infer import text_models
from bettersynth.infer.text_models import (
    ArpaSentences,
    LanguageIdentifier,
    SentenceScorer,
    TextTokenizer,
    load_languages,
    load_sentences,
    load_tokenizer,
)

ARPA = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1.0 <s> -0.5
-0.7 </s>
-0.5 a -0.2
-2.0 <unk>

\\2-grams:
-0.1 <s> a
-0.3 a a

\\end\\
"""


def test_stand_ins_keep_the_protocols() -> None:
    assert isinstance(load_tokenizer("fake"), TextTokenizer)
    assert isinstance(load_languages("fake"), LanguageIdentifier)
    assert isinstance(load_languages("builtin"), LanguageIdentifier)
    assert isinstance(load_sentences("fake"), SentenceScorer)
    assert load_tokenizer("fake").tokenize(["it's 3,0"]) == [["it", "'", "s", "3", ",", "0"]]


def test_an_arpa_file_backs_off(tmp_path: Path) -> None:
    (tmp_path / "x.arpa").write_text(ARPA)
    model = load_sentences(str(tmp_path / "x.arpa"))
    assert isinstance(model, ArpaSentences)
    assert model.log10(["a"]) == pytest.approx(-0.1 + (-0.2 - 0.7))  # <s> a, then a </s> through the back-off of a
    assert model.log10(["a", "a"]) == pytest.approx(-0.1 - 0.3 + (-0.2 - 0.7))
    assert model.log10(["b"]) == pytest.approx((-0.5 - 2.0) + -0.7)  # unknown, after the back-off of <s>
    assert model.log10([]) == pytest.approx(-0.5 - 0.7)


@pytest.mark.parametrize("load", [load_tokenizer, load_languages, load_sentences])
def test_a_missing_file_is_named(load: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model file here"):
        load(str(tmp_path / "none.bin"))  # type: ignore[operator]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(text_models._PACKAGES, "no_such_package", "no-such")
    with pytest.raises(MissingExtraError, match="no_such_package") as caught:
        text_models._import("no_such_package", "x")
    assert caught.value.hint == "pip install no-such"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("A man and a woman are sitting on the bench in the park.", "en"),
        ("Der Hund und die Katze sitzen auf der Bank, und es ist nicht kalt.", "de"),
        ("Le chien et le chat sont dans la rue avec une voiture.", "fr"),
        ("El perro y el gato están en la calle con los niños.", "es"),
        ("Il cane e il gatto sono nella strada con una macchina.", "it"),
        ("\u4e00\u53ea\u72d7\u5750\u5728\u8349\u5730\u4e0a\u3002", "zh"),
        ("\u72ac\u304c\u8349\u306e\u4e0a\u306b\u5ea7\u3063\u3066\u3044\u308b", "ja"),
        ("\uac1c\uac00 \uc794\ub514\uc5d0 \uc549\uc544 \uc788\ub2e4", "ko"),
        ("\u0421\u043e\u0431\u0430\u043a\u0430 \u0441\u0438\u0434\u0438\u0442", "ru"),
        ("\u05db\u05dc\u05d1 \u05d9\u05d5\u05e9\u05d1", "he"),
        ("123 !!! \U0001f600", "und"),
    ],
)
def test_the_builtin_guess(text: str, language: str) -> None:
    found, confidence = load_languages("builtin").identify([text])[0]
    assert found == language
    assert (confidence == 0.0) if language == "und" else 0.5 < confidence <= 1.0
