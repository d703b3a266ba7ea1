"""Tables of HTML texts: what Data-Juicer's answers (test_rows_parity) do not say."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from bettersynth.engine.local import process
from bettersynth.ops._html_tree import parse
from bettersynth.ops.mappers.extract_tables_from_html_mapper import ExtractTablesFromHtmlMapper

TABLE = "<table><tr><td>a<td>b</table>"


def test_tables_stand_beside_the_stats_and_what_others_noted_stays(ctx: Any, batch: Any) -> None:
    rows = batch([TABLE, TABLE, "none"]).append_column(
        "__dj__meta__", pa.array(['{"other":1}', '{"html_tables":["mine"]}', None])
    )
    done = ExtractTablesFromHtmlMapper().apply(rows, ctx)
    assert [json.loads(meta) for meta in done.column("__dj__meta__").to_pylist()] == [
        {"other": 1, "html_tables": [[["ab"]]]},  # the second cell stands in the first, as it was never closed
        {"html_tables": ["mine"]},
        {"html_tables": []},
    ]


def test_they_are_written_with_the_result(recipe_of: Any, tmp_path: Any) -> None:
    rows = [{"id": "1", "text": TABLE}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of(f"dataset_path: {tmp_path / 'd.jsonl'}\nprocess:\n  - extract_tables_from_html_mapper:\n")
    process(recipe, out=tmp_path / "o", workers=1)
    (line,) = (tmp_path / "o" / "processed_data_stats.jsonl").read_text().splitlines()
    assert json.loads(line)["__dj__meta__"] == {"html_tables": [[["ab"]]]}


@pytest.fixture
def recipe_of(tmp_path: Any) -> Any:
    from bettersynth.config.load import parse_yaml
    from bettersynth.config.recipe import build_recipe
    from bettersynth.engine.plan import check_steps

    return lambda text: build_recipe(parse_yaml(text, name="r"), base=tmp_path, check_steps=check_steps)


def test_sections_of_data_are_text() -> None:
    root = parse("<p>a<![CDATA[ b ]]><!-- c --></p>")
    assert root.markup().startswith("<><p>a") and root.text().startswith("a")


def test_a_name_is_needed() -> None:
    with pytest.raises(ValueError, match="tables_field_name"):
        ExtractTablesFromHtmlMapper(tables_field_name="").check()
