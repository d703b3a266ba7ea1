"""Lines of texts, as ``str.splitlines`` cuts them."""

from __future__ import annotations

import numpy as np

from bettersynth.ops._text_codes import I64, CharTable, Codes

_BREAKS = CharTable("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029".__contains__)


def line_spans(codes: Codes) -> tuple[I64, I64]:
    """(text, characters without the break) of every line of all texts, in order."""
    breaks = _BREAKS.look_up(codes).astype(bool)
    feeds = np.flatnonzero(breaks)
    # CR LF is one break: its LF ends no line of its own.
    second = np.zeros(len(feeds), bool)
    if len(feeds) > 1:
        pairs = (codes.codes[feeds[:-1]] == 13) & (codes.codes[feeds[1:]] == 10) & (feeds[1:] == feeds[:-1] + 1)
        second[1:] = pairs & (codes.rows[feeds[1:]] == codes.rows[feeds[:-1]])
    ends = feeds[~second]
    after = ends + 1 + np.append(second[1:], False)[~second]
    filled = np.flatnonzero(codes.lengths)
    # A last line without a break ends where its text ends.
    open_ends = codes.starts[1:][filled][~breaks[codes.starts[1:][filled] - 1]]
    starts = np.unique(np.concatenate([codes.starts[:-1][filled], after[after < len(codes.codes)]]))
    stops = np.sort(np.concatenate([ends, open_ends]))
    return codes.rows[starts].astype(np.int64), stops - starts
