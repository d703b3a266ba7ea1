"""Every registered operator keeps the contract: nothing here names an operator, so a new file is tested for free."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bettersynth.config.load import parse_yaml
from bettersynth.config.recipe import build_recipe
from bettersynth.core.errors import ConfigError, ConfigErrors
from bettersynth.engine.jobs import BASE_SCHEMA
from bettersynth.engine.plan import check_steps
from bettersynth.engine.shard import concat
from bettersynth.ops._catalog import OPERATORS, operator_class
from bettersynth.ops._context import OpContext
from bettersynth.ops.base import KEY, STATS, Filter, Generator, GlobalOperator, Mapper

# Parameters without a usable default: anything an operator demands before it can run at all.
NEEDED: dict[str, dict[str, Any]] = {
    "adaptive_threshold_filter": {"stat": "a"},
    "topk_specified_field_selector": {"field_key": "text", "topk": 3},
    "range_specified_field_selector": {"field_key": "id", "lower_rank": 1, "upper_percentile": 0.9},
    "frequency_specified_field_selector": {"field_key": "text", "topk": 2},
    "tags_specified_field_selector": {"field_key": "text", "target_tags": [""]},
    "flagged_words_filter": {"flagged_words": ["dog"]},
    "stopwords_filter": {"stopwords": ["the", "a"]},
    "quality_score_filter": {"signals": {"a": 1.0}},
    "random_selector": {"select_num": 3},
    "cluster_uniform_selector": {"select_num": 3, "num_clusters": 2},
    "repeat_to_budget_selector": {"num_samples": 9},
    "band_selector": {"stat": "a", "drop_top": 0.2},
    "stat_range_filter": {"stat": "a", "min_value": 0.3},
    "latex_merge_tex_mapper": {"compressed_file_key": "archive"},
    "specified_field_filter": {"field_key": "id", "target_value": ["i1", "i2"]},
    "specified_numeric_field_filter": {"field_key": "id"},
}
# Text mappers that do not rewrite the text there was: theirs comes from elsewhere.
REPLACING = ("latex_merge_tex_mapper",)
TEXTS = [
    "<image>\na red dog at the top ; the sign says STOP <|__dj__eoc|>",
    "<image>\nthe <b>blue</b> house &amp; the &quot;tree&quot; <|__dj__eoc|>",
    "<image>\nschÃ¶n — “quoted” text\u3000with spaces http://a.example/b <|__dj__eoc|>",
    "<__dj__image> a red dog at the top ; the sign says STOP <|__dj__eoc|>",
    "",
    "word word word word word word word word word word word word. word word. me@x.org",
    "<image>\ntwo blue cats and a white bus with number 42 <|__dj__eoc|>",
]
IMAGES = [["0.png"], ["1.png"], ["2.png"], ["0.png"], [], [], ["1.png"]]


def build(name: str, **extra: Any) -> Any:
    cls = operator_class(name)
    params = dict(NEEDED.get(name, {}))
    params.update(dict.fromkeys(cls.models, "fake"))
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in params.items()}
    return cls(**{**params, **extra})


@pytest.fixture
def ctx(tmp_path: Path) -> OpContext:
    for number in range(3):
        small = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((40, 40)).save(tmp_path / f"{number}.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("a.tex", "<image>\nall of it <|__dj__eoc|>")
    return OpContext(seed=5, image_roots=[tmp_path], device="cpu")


@pytest.fixture
def rows() -> Any:
    count = len(TEXTS)
    columns = {
        KEY[0]: [0] * count,
        KEY[1]: list(range(1, count + 1)),
        KEY[2]: [0] * count,
        "id": [f"i{n}" for n in range(count)],
        "text": TEXTS,
        "images": IMAGES,
        "__record__": ['{"archive": "a.zip"}'] * count,
    }
    batch = pa.record_batch([pa.array(columns[f.name], f.type) for f in BASE_SCHEMA], schema=BASE_SCHEMA)
    return batch.append_column("stats.a", pa.array([0.1, 0.5, None, 0.9, 0.2, 0.7, 0.4]))


def run(operator: Any, batch: Any, ctx: OpContext) -> dict[str, list[Any]]:
    """The per-row outcome of any kind, as plain columns."""
    if isinstance(operator, Filter):
        stats = operator.score(batch, ctx)
        kept = operator.keep(stats)
        dropped = np.flatnonzero(~kept)
        assert kept.dtype == bool and len(kept) == batch.num_rows
        assert len(operator.reasons(stats, dropped)) == len(dropped)
        return {**{n: c.to_pylist() for n, c in stats.items()}, "kept": kept.tolist()}
    if isinstance(operator, Mapper):
        out = operator.apply(batch, ctx)
        return {name: out.column(name).to_pylist() for name in out.schema.names}
    if isinstance(operator, Generator):
        made = operator.make(batch, ctx)
        ids = batch.column("id").take(pa.array(made.source)).to_pylist()
        assert made.batch.column("id").to_pylist() == ids
        return {name: made.batch.column(name).to_pylist() for name in made.batch.schema.names}
    assert isinstance(operator, GlobalOperator)
    partial = operator.partial(batch, ctx)
    # NaN is not equal to itself; None is
    return {name: [None if v != v else v for v in column.to_pylist()] for name, column in partial.items()}


@pytest.fixture(params=OPERATORS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_says_what_it_does(name: str) -> None:
    cls = operator_class(name)
    assert OPERATORS.summary(name).endswith("."), "the module's first line is shown in lists"
    assert (inspect.getdoc(cls) or "").strip() and not (inspect.getdoc(cls) or "").startswith(cls.__name__ + "(")
    documented = "\n".join(inspect.getdoc(base) or "" for base in cls.__mro__)
    for field in dataclasses.fields(cls):
        assert field.name in documented, f"parameter {field.name} is not described"
    assert isinstance(cls.version, int) and cls.version >= 1 and cls.track in ("challenge", "open")
    assert set(cls.models) <= {field.name for field in dataclasses.fields(cls)}


def test_the_name_tells_the_kind(name: str) -> None:
    assert name.endswith(("_mapper", "_filter", "_deduplicator", "_selector", "_generator"))
    assert build(name).name == name


def test_it_is_plain_data(name: str) -> None:
    operator = build(name)
    operator.check()
    assert pickle.loads(pickle.dumps(operator)) == operator
    with pytest.raises((AttributeError, TypeError)):
        operator.anything = 1


def test_an_unknown_key_and_a_wrong_type_are_refused_with_the_line(name: str) -> None:
    cls = operator_class(name)
    text = f"process:\n  - {name}:\n      no_such_key: 1\n"
    first = next((f for f in dataclasses.fields(cls) if f.type in ("int", "float", "str", "bool")), None)
    if first is not None:
        text += f"      {first.name}: [wrong]\n"
    with pytest.raises((ConfigError, ConfigErrors)) as caught:
        build_recipe(parse_yaml(text, name="r.yaml"), base=Path(), check_steps=check_steps)
    shown = caught.value.render()
    assert "r.yaml:3" in shown and "no_such_key" in shown
    assert first is None or "r.yaml:4" in shown


def test_an_empty_batch_gives_an_empty_result_with_the_same_columns(name: str, rows: Any, ctx: OpContext) -> None:
    operator = build(name)
    empty, full = run(operator, rows.slice(0, 0), ctx), run(operator, rows, ctx)
    assert list(empty) == list(full) and all(values == [] for values in empty.values())


def test_splitting_the_batch_changes_nothing(name: str, rows: Any, ctx: OpContext) -> None:
    operator = build(name)
    whole = run(operator, rows, ctx)
    parts = [run(operator, rows.slice(start, 2), ctx) for start in range(0, rows.num_rows, 2)]
    assert {key: [value for part in parts for value in part[key]] for key in whole} == whole


def test_the_same_seed_gives_the_same_in_a_fresh_context(name: str, rows: Any, ctx: OpContext) -> None:
    again = OpContext(seed=5, image_roots=ctx.image_roots, device="cpu")
    assert run(build(name), rows, ctx) == run(build(name), rows, again)


def test_reads_and_writes_are_truthful(name: str, rows: Any, ctx: OpContext) -> None:
    operator = build(name)
    needed = {*KEY, "id", "__record__", *operator.needs()}
    # Columns that a kind copies through must exist; their content may not matter unless they are read.
    blank = {
        "text": pa.array([""] * rows.num_rows),
        "images": pa.array([[]] * rows.num_rows, BASE_SCHEMA.field("images").type),
    }
    bare = rows
    for column, values in blank.items():
        if column not in needed:
            bare = bare.set_column(bare.schema.get_field_index(column), column, values)
    bare = bare.select([n for n in bare.schema.names if not n.startswith(STATS) or n in needed])
    touched = {n for n in operator.writes if not n.startswith(STATS)}
    before, after = run(operator, rows, ctx), run(operator, bare, ctx)
    for key in after:
        if key in touched or key not in rows.schema.names:
            assert after[key] == before[key], f"{key} depends on a column that is not in reads"
    if isinstance(operator, Filter):
        assert {STATS + key for key in before if key != "kept"} == set(operator.adds())
    if isinstance(operator, Mapper):
        for column in rows.schema.names:
            if column not in operator.writes:
                assert before[column] == rows.column(column).to_pylist(), f"{column} changed but is not in writes"
        assert set(before) - set(rows.schema.names) <= set(operator.writes)


def test_a_global_operator_decides_on_every_row_in_order(name: str, rows: Any, ctx: OpContext) -> None:
    operator = build(name)
    if not isinstance(operator, GlobalOperator):
        pytest.skip("decides row by row")
    table = pa.table({"id": rows.column("id"), **operator.partial(rows, ctx)})
    verdict, again = operator.reduce(table, ctx), operator.reduce(table, ctx)
    assert verdict.copies.tolist() == again.copies.tolist() and len(verdict.copies) == rows.num_rows
    assert len(verdict.reasons) == rows.num_rows
    assert all(bool(reason) == (count == 0) for reason, count in zip(verdict.reasons, verdict.copies, strict=True))
    assert {STATS + column for column in verdict.columns} <= set(operator.writes)
    assert all(len(values) == rows.num_rows for values in verdict.columns.values())
    single = operator.reduce(table.slice(0, 1), ctx)
    assert len(single.copies) == 1


def test_image_tokens_survive_every_text_mapper(name: str, rows: Any, ctx: OpContext) -> None:
    operator = build(name)
    if not isinstance(operator, Mapper | Generator) or "text" not in operator.writes or name in REPLACING:
        pytest.skip("does not write text")
    out = operator.apply(rows, ctx) if isinstance(operator, Mapper) else operator.make(rows, ctx).batch
    by_id = dict(zip(rows.column("id").to_pylist(), TEXTS, strict=True))
    for row_id, text in zip(out.column("id").to_pylist(), out.column("text").to_pylist(), strict=True):
        assert ctx.tokens.num_images(text) == ctx.tokens.num_images(by_id[row_id])
        assert text.count(ctx.tokens.eoc) == by_id[row_id].count(ctx.tokens.eoc)


def test_concat_is_the_inverse_of_slicing(rows: Any) -> None:
    assert concat([rows.slice(0, 3), rows.slice(3)]).equals(rows)
