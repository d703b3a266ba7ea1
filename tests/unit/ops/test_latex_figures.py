"""Figures of papers: what Data-Juicer's answers (test_rows_parity) do not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bettersynth.engine.local import process
from bettersynth.formats.jsonl import read_rows
from bettersynth.ops.mappers.latex_figure_context_extractor_mapper import LatexFigureContextExtractorMapper

PAPER = (
    "Look at \\ref{a}.\n\n\\begin{figure}\\includegraphics{a.png}\\caption{A}\\label{a}\\end{figure}\n\n"
    "\\begin{figure}\\includegraphics{b.png}\\caption{B}\\end{figure}"
)


def test_a_paper_becomes_its_figures_and_every_row_is_accounted_for(tmp_path: Path) -> None:
    from bettersynth.config.load import parse_yaml
    from bettersynth.config.recipe import build_recipe
    from bettersynth.engine.local import accounting_of
    from bettersynth.engine.plan import check_steps

    rows = [{"id": "p", "text": PAPER, "year": 2020}, {"id": "none", "text": "no figures"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = f"dataset_path: {tmp_path / 'd.jsonl'}\ntrack: open\nprocess:\n  - latex_figure_context_extractor_mapper:\n"
    recipe = build_recipe(parse_yaml(text, name="r"), base=tmp_path, check_steps=check_steps)
    artifact = process(recipe, out=tmp_path / "o", workers=1)
    found = [row for _, row in read_rows(tmp_path / "o" / "processed_data.jsonl")]
    assert [(row["id"], row["images"], row["caption"], row["citing_paragraphs"], row["year"]) for row in found] == [  # type: ignore[index]
        ("p", ["a.png"], "A", ["Look at \\ref{a}."], 2020),
        ("p", ["b.png"], "B", [], 2020),
    ]
    entry = accounting_of(artifact)[-1]
    assert entry.is_balanced() and (entry.rows_in, entry.rows_made, entry.rows_out) == (2, 1, 2)


@pytest.mark.parametrize(
    "keys", [{"caption_key": "text"}, {"caption_key": "label"}, {"label_key": ""}, {"paragraph_separator": ""}]
)
def test_fields_must_have_names_of_their_own(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        LatexFigureContextExtractorMapper(**keys).check()
