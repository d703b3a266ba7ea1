"""Sentences on lines of their own: what NLTK's answers (test_rows_parity) do not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import build_recipe
from bettersynth.core.errors import ConfigError
from bettersynth.engine.keys import model_digest
from bettersynth.engine.plan import check_steps, plan
from bettersynth.ops._sentences import FILES, load
from bettersynth.ops.mappers.sentence_split_mapper import SentenceSplitMapper


def test_captions() -> None:
    split = SentenceSplitMapper().rewrite
    assert split("Dr. Smith paints. The sign says STOP! A dog, e.g. a poodle, sleeps.").split("\n") == [
        "Dr. Smith paints.",
        "The sign says STOP!",
        "A dog, e.g. a poodle, sleeps.",
    ]
    assert split("<image>\na dog. <|__dj__eoc|>") == "<image>\na dog.\n<|__dj__eoc|>"


@pytest.mark.parametrize(
    ("lang", "text"),
    [("fr", "Voici M. Hugo. Il lit."), ("pt", "O Sr. Silva dorme. Ele ri."), ("es", "La Sra. Paz lee. Ella ve.")],
)
def test_every_language_knows_a_title(lang: str, text: str) -> None:
    assert SentenceSplitMapper(lang=lang).rewrite(text).count("\n") == 1  # type: ignore[arg-type]


def test_parameters_of_ones_own_count_for_the_cache_and_must_be_whole(tmp_path: Path) -> None:
    folder = tmp_path / "english"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("xyz" if name == "abbrev_types.txt" else "")
    assert SentenceSplitMapper(punkt=str(folder)).rewrite("Dr. A xyz. b") == "Dr.\nA xyz. b"
    text = f"process:\n  - sentence_split_mapper: {{punkt: {folder}}}\n"
    first = plan(build_recipe(parse_yaml(text, name="r"), base=tmp_path, check_steps=check_steps)).digest
    digest = model_digest(str(folder))
    (folder / "abbrev_types.txt").write_text("other")
    load.cache_clear()
    model_digest.cache_clear()
    assert model_digest(str(folder)) != digest
    assert plan(build_recipe(parse_yaml(text, name="r"), base=tmp_path, check_steps=check_steps)).digest != first
    (folder / "collocations.tab").unlink()
    load.cache_clear()
    with pytest.raises(ConfigError, match="no Punkt parameters"):
        build_recipe(parse_yaml(text, name="r"), base=tmp_path, check_steps=check_steps)
