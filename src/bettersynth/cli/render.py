"""What commands print: JSON or aligned text to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


def show_data_progress(progress: Progress) -> Callable[[Any], None]:
    """What the data engine reports: a line that moves, and one line per operator when a long stage has ended."""
    from bettersynth.core.lang import t

    def show(state: Any) -> None:
        line = t(
            "stage {stage}/{stages} {operators}: {done}/{shards} shards",
            stage=state.stage,
            stages=state.stages,
            operators=_few(state.operators) or t("reading"),
            done=state.shards_done,
            shards=state.shards,
        )
        if state.rows_per_s:
            line += t(", {rate} rows/s, {left} s left", rate=f"{state.rows_per_s:,.0f}", left=f"{state.left_s:.0f}")
        if state.dropped:
            line += t(", {n} rows dropped", n=f"{state.dropped:,}")
        failed = t(", {n} rows set aside", n=state.quarantined) if state.quarantined else ""
        progress(line + failed)
        if state.shards_done == state.shards and state.seconds >= _LONG_STAGE_S:
            for step in state.steps:
                progress.done(
                    t(
                        "  {operator}: {rows_in} in, {kept} kept, {dropped} dropped, {failed} set aside, {rate}/CPU s",
                        operator=step.operator,
                        rows_in=f"{step.rows_in:,}",
                        kept=f"{step.kept:,}",
                        dropped=f"{step.dropped:,}",
                        failed=step.quarantined,
                        rate=f"{step.rows_per_cpu_s:,.0f}",
                    )
                )

    return show


_LONG_STAGE_S = 5.0


def _few(names: Sequence[str], most: int = 3) -> str:
    """A few names and how many more there are."""
    return ", ".join(names[:most]) + (f" +{len(names) - most}" if len(names) > most else "")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value).__name__)


def print_json(value: Any) -> None:
    """One JSON document to stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=_plain))


def print_facts(facts: Mapping[str, object]) -> None:
    """Aligned ``name  value`` lines to stdout."""
    from bettersynth.report.terminal import display_width, pad

    width = max((display_width(name) for name in facts), default=0)
    for name, value in facts.items():
        print(f"{pad(name, width)}  {value}".rstrip())


def print_rows(header: Sequence[str], rows: Sequence[Sequence[object]], align: str = "") -> None:
    """A plain table to stdout; numbers are the caller's to format. ``align``: one of ``<`` and ``>`` per column."""
    from bettersynth.report.terminal import render_table

    print(render_table(list(header), [[printable(str(cell)) for cell in row] for row in rows], align))


def printable(text: str) -> str:
    """A text of somebody's data on one line, with what steers a terminal written out (``\\x1b``)."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def print_accounting(counts: Sequence[Any]) -> None:
    """Rows of every operator: in, out, made, changed, set aside, dropped by reason."""
    from bettersynth.core.lang import t

    header = [t("operator"), t("in"), t("out"), t("made"), t("changed"), t("quarantined"), t("CPU s"), t("dropped")]
    rows = []
    for c in counts:
        dropped = ", ".join(f"{reason}: {count}" for reason, count in c.dropped.items()) or "0"
        rows.append(
            [c.operator, c.rows_in, c.rows_out, c.rows_made, c.changed, c.quarantined, f"{c.cpu_s:.2f}", dropped]
        )
    print_rows(header, rows, "<>>>>>>")


def print_left_out(artifact: Any) -> None:
    """What the input of a processed data set held beside rows, if anything."""
    from bettersynth.formats.webdataset import left_out_note

    if artifact.facts.get("left_out"):
        print(left_out_note(artifact.facts["left_out"]))


def print_comparison(table: Any) -> None:
    """The table of a comparison with ranks, ties and notes."""
    from bettersynth.experiment.tables import cells, legend

    header, rows = cells(table)
    print_rows(header, rows)
    print()
    for line in legend(table):
        print(line)


def print_scores(results: Mapping[str, Sequence[Any]], *, as_json: bool) -> None:
    """Scores by condition as JSON or as the report's table; refuses scores without provenance."""
    from bettersynth.core.record import ReportInput
    from bettersynth.report.terminal import render_terminal

    if as_json:
        print_json(results)
        return
    print(render_terminal(ReportInput("", "", is_demo=False, results={k: tuple(v) for k, v in results.items()})))
    for name, found in results.items():
        for result in found:
            if result.facts:
                facts = ", ".join(f"{fact} {value:.1f}" for fact, value in result.facts.items())
                print(f"{name}, {result.protocol}: {facts}")


class Progress:
    """Live line on a terminal, a plain line now and then elsewhere; always on stderr.

    Call it with a message; the same stage's messages replace each other on a terminal.
    """

    def __init__(self, *, quiet: bool = False, every_s: float = 10.0) -> None:
        self._quiet = quiet
        self._every_s = every_s
        self._live = sys.stderr.isatty()
        self._last = 0.0
        self._open = False

    def __call__(self, message: str) -> None:
        """Show a message that a later one may replace."""
        if self._quiet:
            return
        now = time.monotonic()
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{message[:160]}")
            sys.stderr.flush()
            self._open = True
        elif now - self._last >= self._every_s:
            print(message, file=sys.stderr, flush=True)
        else:
            return
        self._last = now

    def done(self, message: str) -> None:
        """Show a message that stays."""
        if self._quiet:
            return
        if self._live and self._open:
            sys.stderr.write("\r\x1b[2K")
            self._open = False
        print(message, file=sys.stderr, flush=True)


def share_text(share: Any) -> str:
    """A share with its interval in percent, ``91.2 [85, 95]``; nothing where nobody was counted."""
    if not share.of:
        return ""
    low, high = share.interval
    return f"{100 * share.value:.1f} [{100 * low:.0f}, {100 * high:.0f}]"
