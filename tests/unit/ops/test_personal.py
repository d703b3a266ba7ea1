"""Marks in the place of personal data: what Data-Juicer's answers (test_rows_parity) do not say."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
import pytest

from bettersynth.ops.mappers.pii_redaction_mapper import PiiRedactionMapper


def with_records(rows: Any, records: list[dict[str, Any]]) -> Any:
    column = pa.array([orjson.dumps(record).decode() for record in records])
    return rows.set_column(rows.schema.get_field_index("__record__"), "__record__", column)


def test_pictures_keep_their_paths(ctx: Any, batch: Any) -> None:
    record = {"images": ["/home/me/a.png"], "text": "", "more": ["/home/me/b.png"]}
    rows = with_records(batch(["at /home/me/x"], images=[["/home/me/a.png"]]), [record])
    done = PiiRedactionMapper().apply(rows, ctx)
    assert done.column("images").to_pylist() == [["/home/me/a.png"]]
    assert orjson.loads(done.column("__record__")[0].as_py()) == {**record, "more": ["[PATH_REDACTED]"]}


@pytest.mark.parametrize("text", ["<image>\nsee /home/me/x<|__dj__eoc|> token: <image>", "password=<|__dj__eoc|>"])
def test_special_tokens_survive(text: str, ctx: Any, batch: Any) -> None:
    (done,) = PiiRedactionMapper().apply(batch([text]), ctx).column("text").to_pylist()
    token = ctx.tokens.pattern()
    assert token.findall(done) == token.findall(text) and "/home" not in done


def test_a_text_under_another_name_is_never_left_out(ctx: Any, batch: Any) -> None:
    rows = with_records(batch(["mail me@x.org"]), [{"caption": "mail me@x.org"}])
    mapper = PiiRedactionMapper(redact_keys=("caption",))
    assert mapper.apply(rows, ctx).column("text").to_pylist() == ["mail [EMAIL_REDACTED]"]


def test_a_bad_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="extra_patterns"):
        PiiRedactionMapper(extra_patterns=(("(", ""),)).check()
