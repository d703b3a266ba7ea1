"""What happened to the data: rows by reason, distributions, pictures, rewritten captions, filters on known noise."""

from __future__ import annotations

from collections.abc import Sequence

from bettersynth.core.record import Accounting, DatasetSummary, FilterQuality, Picture, ReportInput
from bettersynth.report.charts import histogram, stacked_bar
from bettersynth.report.pictures import PictureBook, fill
from bettersynth.report.text import both, escape, precision_and_recall, share

MAX_HISTOGRAMS = 16


def data_section(report: ReportInput, book: PictureBook) -> str:
    """All data sets, one after the other; the first is open, the others fold away when there are many."""
    blocks = []
    for position, data in enumerate(report.datasets):
        body = _dataset(data, book)
        title = escape(data.name)
        if len(report.datasets) > 2 and position > 0:
            blocks.append(f'<details class="card"><summary class="big">{title}</summary>{body}</details>')
        else:
            blocks.append(f'<div class="card"><h3>{title}</h3>{body}</div>')
    return "".join(blocks)


def _dataset(data: DatasetSummary, book: PictureBook) -> str:
    parts = [_totals(data), _accounting(data.accounting), _histograms(data), _quality(data.filter_quality)]
    parts.append(_galleries(data, book))
    facts = []
    if data.source:
        facts.append(both("source: {source}", source=data.source))
    if data.digest:
        facts.append(f"{both('digest')}: <code>{escape(data.digest)}</code>")
    if facts:
        parts.append(f'<p class="small">{"; ".join(facts)}</p>')
    return "".join(parts)


def _totals(data: DatasetSummary) -> str:
    steps = data.accounting
    if not steps:
        return f"<p>{both('{n} rows.', n=f'{data.rows:,}')}</p>"
    rows_in, rows_out = steps[0].rows_in, steps[-1].rows_out
    made = sum(step.rows_made for step in steps)
    dropped = sum(sum(step.dropped.values()) for step in steps)
    failed = sum(step.quarantined for step in steps)
    items = [
        ("", both("rows in"), rows_in),
        ("made", both("made"), made),
        ("kept", both("out"), rows_out),
        ("dropped", both("dropped"), dropped),
        ("failed", both("quarantined"), failed),
    ]
    tiles = "".join(
        f'<div class="tile"><b>{count:,}</b><span><i class="swatch {kind}"></i>{label}</span></div>'
        for kind, label, count in items
        if count or kind in ("", "kept")
    )
    bar = stacked_bar([("kept", rows_out), ("dropped", dropped), ("failed", failed)], rows_in + made)
    warning = ""
    if not all(step.is_balanced() for step in steps) or rows_in + made != rows_out + dropped + failed:
        warning = f'<p class="alarm">{both("Rows are unaccounted for: the sums below do not add up.")}</p>'
    return f'<div class="tiles">{tiles}</div>{bar}{warning}{_reasons(steps)}'


def _reasons(steps: Sequence[Accounting]) -> str:
    counts = [(f"{step.operator}: {reason}", "dropped", n) for step in steps for reason, n in step.dropped.items() if n]
    counts += [(f"{step.operator}", "failed", step.quarantined) for step in steps if step.quarantined]
    if not counts:
        return ""
    counts.sort(key=lambda item: -item[2])
    top = counts[0][2]
    rows = "".join(
        f'<div class="row"><span class="name">{escape(reason)}'
        f"{' <span class=tag>' + both('quarantined') + '</span>' if kind == 'failed' else ''}</span>"
        f'{stacked_bar([(kind, n)], top)}<span class="value"><b>{n:,}</b></span></div>'
        for reason, kind, n in counts
    )
    return f'<h4>{both("Why rows were dropped or set aside")}</h4><div class="scores reasons">{rows}</div>'


def _accounting(steps: Sequence[Accounting]) -> str:
    if not steps:
        return ""
    rows = []
    for step in steps:
        mark = "\N{CHECK MARK}" if step.is_balanced() else "\N{WARNING SIGN}"
        numbers = [
            step.rows_in,
            step.rows_made,
            step.changed,
            sum(step.dropped.values()),
            step.quarantined,
            step.rows_out,
        ]
        cells = "".join(f'<td class="num{"" if n else " zero-cell"}">{n:,}</td>' for n in numbers)
        rows.append(
            f'<tr><th scope="row">{escape(step.operator)}</th>{cells}<td class="num">{mark}</td>'
            f'<td class="num">{step.cpu_s:.1f}</td></tr>'
        )
    words = ("in", "made", "changed", "dropped", "quarantined", "out", "sum", "CPU s")
    head = f"<th>{both('operator')}</th>" + "".join(f'<th class="num">{both(word)}</th>' for word in words)
    return (
        f'<details open><summary>{both("Every row, operator by operator")}</summary><div class="scroll"><table>'
        f'<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div><p class="small">'
        f"{both('in + made = out + dropped + quarantined, checked for every operator.')}</p></details>"
    )


def _histograms(data: DatasetSummary) -> str:
    if not data.histograms:
        return ""
    shown = list(data.histograms.items())[:MAX_HISTOGRAMS]
    figures = "".join(histogram(name, values) for name, values in shown)
    swatches = [f'<i class="swatch {kind}"></i>{both(kind)}' for kind in ("before", "after")]
    key = f'<p class="small">{" ".join(swatches)}</p>'
    rest = len(data.histograms) - len(shown)
    more = f'<p class="small">{both("{n} more distributions are not drawn.", n=rest)}</p>' if rest else ""
    return f'<h4>{both("Before and after")}</h4>{key}<div class="hists">{figures}</div>{more}'


def _quality(classes: Sequence[FilterQuality]) -> str:
    if not classes:
        return ""
    rows = []
    for item in classes:
        mended = item.dropped + item.repaired
        is_noise = item.noise != "clean"
        parts = [("dropped", item.dropped), ("made", item.repaired), ("kept" if not is_noise else "missed", item.kept)]
        caught = (
            share(mended, item.total)
            if is_noise
            else both("{share} kept", share=share(item.total - item.dropped, item.total))
        )
        counts = both(
            "{total}: {dropped} dropped, {repaired} repaired, {kept} kept",
            total=item.total,
            dropped=item.dropped,
            repaired=item.repaired,
            kept=item.kept,
        )
        rows.append(
            f'<div class="row"><span class="name">{escape(item.noise)}</span>{stacked_bar(parts, item.total)}'
            f'<span class="value"><b>{caught}</b> <span class="small">{counts}</span></span></div>'
        )
    sentence, values = precision_and_recall(classes)
    summary = both(sentence, **values)
    key = " ".join(
        f'<i class="swatch {kind}"></i>{both(word)}'
        for kind, word in (("dropped", "dropped"), ("made", "repaired"), ("missed", "missed"), ("kept", "kept"))
    )
    return (
        f'<h4>{both("Filters against the known noise")}</h4><p>{summary}</p><p class="small">{key}</p>'
        f'<div class="scores wider noise">{"".join(rows)}</div>'
    )


def _galleries(data: DatasetSummary, book: PictureBook) -> str:
    filled = fill(book, data.galleries)
    parts = []
    for name, entries in filled.items():
        if not entries:
            continue
        total = len(data.galleries[name])
        drawn = sum(1 for _, uri in entries if uri)
        side_by_side = any(picture.before for picture, _ in entries)
        body = "".join((_pair if side_by_side else _card)(picture, uri) for picture, uri in entries)
        note = both("{shown} of {total} shown", shown=len(entries), total=total)
        if drawn < len(entries):
            note += "; " + both(
                "{n} without a picture (missing, damaged, too large, or over the page's size)", n=len(entries) - drawn
            )
        kind = "pairs" if side_by_side else "gallery"
        parts.append(
            f"<details{' open' if side_by_side else ''}><summary>{escape(name)} "
            f'<span class="small">{note}</span></summary>'
            f'<div class="{kind}">{body}</div></details>'
        )
    return f"<h4>{both('Look at them')}</h4>{''.join(parts)}" if parts else ""


def _image(picture: Picture, uri: str | None) -> str:
    if uri is None:
        return f'<div class="noimage">{both("no picture")}<br>{escape(picture.path)}</div>'
    return f'<img src="{uri}" alt="{escape(picture.path)}" title="{escape(picture.path)}" loading="lazy">'


def _card(picture: Picture, uri: str | None) -> str:
    note = f'<p class="small">{escape(picture.note)}</p>' if picture.note else ""
    return (
        f'<figure class="shot">{_image(picture, uri)}<figcaption>{escape(picture.caption)}{note}</figcaption></figure>'
    )


def _pair(picture: Picture, uri: str | None) -> str:
    note = f'<p class="small">{escape(picture.note)}</p>' if picture.note else ""
    before = f'<div class="was"><span class="small">{both("before")}</span><p>{escape(picture.before)}</p></div>'
    after = f'<div class="is"><span class="small">{both("after")}</span><p>{escape(picture.caption)}</p></div>'
    return f'<figure class="pair">{_image(picture, uri)}<div class="texts">{before}{after}{note}</div></figure>'
