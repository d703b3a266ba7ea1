"""Scores with intervals and chance levels, their categories and origin, and the paired comparisons."""

from __future__ import annotations

from bettersynth.core.record import Comparison, EvalResult, ReportInput
from bettersynth.report.charts import NUM_COLOURS, axis_row, difference_strip, nice_top, score_strip
from bettersynth.report.text import both, escape, interval, p_value, points, signed
from bettersynth.report.verdict import protocols, verdict_of

_ROLE_WORDS = {"baseline": "baseline", "open": "open track", "reference": "reference"}
_TONES = {"better": "good", "worse": "bad", "tie": "plain", "at chance": "muted"}


def colours(report: ReportInput) -> dict[str, int]:
    """A colour number (1 to 8, then grey) for every condition, the same in all charts of a page."""
    names = [*report.results, *(training.name for training in report.trainings)]
    return {name: number if number <= NUM_COLOURS else 0 for number, name in enumerate(dict.fromkeys(names), 1)}


def score_section(report: ReportInput) -> str:
    """One error-bar chart per protocol, then the details that a sceptic asks for."""
    blocks = []
    for protocol in protocols(report):
        scored = [
            (name, score) for name, scores in report.results.items() for score in scores if score.protocol == protocol
        ]
        if scored:
            blocks.append(_protocol(report, protocol, scored))
    return "".join(blocks)


def _protocol(report: ReportInput, protocol: str, scored: list[tuple[str, EvalResult]]) -> str:
    top = min(100.0, nice_top(1.04 * max(max(score.score.high, score.chance) for _, score in scored)))
    colour = colours(report)
    rows = "".join(_score_row(report, name, score, top, colour[name]) for name, score in scored)
    first = scored[0][1]
    counts = sorted({score.num_questions for _, score in scored})
    asked = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}\N{EN DASH}{counts[-1]:,}"
    note = both(
        "{n} questions; dashed line: chance, {chance} % ({method}); bars: {level} % intervals.",
        n=asked,
        chance=points(first.chance),
        method=first.chance_method,
        level=f"{100 * first.score.level:.0f}",
    )
    limits = sorted({score.provenance["limit"] for _, score in scored if score.provenance.get("limit")})
    if limits:
        note += f" <b>{both('Only the first {n} questions were asked (--limit).', n=', '.join(limits))}</b>"
    if any(score.per_seed for _, score in scored):
        note += " " + both("Small dots: single seeds.")
    return (
        f'<div class="card"><h3>{escape(protocol)} <span class="small">{escape(first.task)}</span></h3>'
        f'<p class="small">{note}</p>'
        f'<div class="scores">{rows}<div class="row"><span></span>{axis_row(top, unit=" %")}<span></span></div></div>'
        f"{_categories(scored)}{_provenance(scored)}</div>"
    )


def _score_row(report: ReportInput, name: str, score: EvalResult, top: float, colour: int) -> str:
    role = _ROLE_WORDS.get(report.roles.get(name, ""), "")
    tag = f' <span class="tag">{both(role)}</span>' if role else ""
    if score.at_chance:
        tag += f' <span class="tag muted">{both("at chance")}</span>'
    value = f"<b>{points(score.score.value)}</b> <span class='small'>{interval(score.score)}</span>"
    label = f'<span class="name">{escape(name)}{tag}</span>'
    return f'<div class="row">{label}{score_strip(score, top, colour)}<span class="value">{value}</span></div>'


def _categories(scored: list[tuple[str, EvalResult]]) -> str:
    names = list(dict.fromkeys(category for _, score in scored for category in score.by_category))
    if not names:
        return ""
    head = "".join(f'<th class="num">{escape(name)}</th>' for name, _ in scored)
    rows = []
    for category in names:
        known = [score.by_category[category][1] for _, score in scored if category in score.by_category]
        cells = "".join(
            f'<td class="num">{points(score.by_category[category][0])}</td>'
            if category in score.by_category
            else "<td></td>"
            for _, score in scored
        )
        rows.append(f'<tr><th scope="row">{escape(category)}</th><td class="num muted">{known[0]:,}</td>{cells}</tr>')
    head = f'<th>{both("category")}</th><th class="num">{both("questions")}</th>{head}'
    return (
        f'<details><summary>{both("By category")}</summary><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _provenance(scored: list[tuple[str, EvalResult]]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(key)}</td><td><code>{escape(value)}</code></td></tr>"
        for name, score in scored
        for key, value in score.provenance.items()
    )
    return (
        f'<details><summary>{both("Where these scores come from")}</summary><div class="scroll"><table>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def comparison_section(report: ReportInput) -> str:
    """Paired differences with their intervals; the verdict is the record's, never rounder than it."""
    blocks = []
    for protocol in dict.fromkeys(comparison.protocol for comparison in report.comparisons):
        compared = [comparison for comparison in report.comparisons if comparison.protocol == protocol]
        reach = nice_top(
            1.04 * max(max(abs(c.difference.low), abs(c.difference.high), abs(c.difference.value)) for c in compared)
        )
        rows = "".join(_difference_row(report, comparison, reach) for comparison in compared)
        axis = f'<div class="row"><span></span>{axis_row(reach, -reach)}<span></span></div>'
        blocks.append(
            f'<div class="card"><h3>{escape(protocol)}</h3><p class="small">'
            f"{both('Difference in points on the same questions and seeds, with its interval.')}</p>"
            f'<div class="scores wider">{rows}{axis}</div>{_comparison_table(report, compared)}</div>'
        )
    return "".join(blocks)


def _difference_row(report: ReportInput, comparison: Comparison, reach: float) -> str:
    verdict = verdict_of(report, comparison)
    tone = _TONES.get(verdict, "plain")
    label = both("{b} against {a}", b=comparison.b, a=comparison.a)
    value = (
        f"<b>{signed(comparison.difference.value)}</b> <span class='small'>{interval(comparison.difference)}</span> "
        f'<span class="tag {tone}">{both(verdict)}</span>'
    )
    strip = difference_strip(comparison.difference, reach, tone)
    return f'<div class="row"><span class="name">{label}</span>{strip}<span class="value">{value}</span></div>'


def _comparison_table(report: ReportInput, compared: list[Comparison]) -> str:
    rows = []
    for c in compared:
        # A ratio of scores that are at chance would read like a gain.
        hide = c.relative_percent is None or verdict_of(report, c) == "at chance"
        relative = "n/a" if hide else f"{signed(c.relative_percent or 0.0)} %"
        cells = [points(c.score_a.value), points(c.score_b.value), signed(c.difference.value), relative]
        cells += [p_value(c.p_value), p_value(c.p_value_holm), str(c.num_seeds)]
        numbers = "".join(f'<td class="num">{cell}</td>' for cell in cells)
        rows.append(
            f"<tr><td>{escape(c.a)}</td><td>{escape(c.b)}</td>{numbers}<td>{both(verdict_of(report, c))}</td></tr>"
        )
    heads = [both("a"), both("b")]
    numeric = [both(word) for word in ("score a", "score b", "b − a", "relative", "p", "p (Holm)", "seeds")]
    head = "".join(f"<th>{text}</th>" for text in heads) + "".join(f'<th class="num">{text}</th>' for text in numeric)
    return (
        f'<details><summary>{both("All figures")}</summary><div class="scroll"><table><thead><tr>{head}'
        f"<th>{both('verdict')}</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )
