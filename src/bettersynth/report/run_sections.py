"""How the models were trained, what each stage cost, and where everything came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bettersynth.core.record import ReportInput, TrainingSummary
from bettersynth.report.charts import curves, legend, stacked_bar
from bettersynth.report.score_section import colours
from bettersynth.report.text import both, escape, number, seconds, size

_CURVES = (("loss", "loss, stage {stage}", False), ("lr", "learning rate, stage {stage}", True))


def training_section(report: ReportInput) -> str:
    """Loss and learning rate of every condition, stage by stage, then the settings of each run."""
    if not report.trainings:
        return ""
    colour = colours(report)
    names = list(dict.fromkeys(training.name for training in report.trainings))
    parts = [legend([(name, colour[name]) for name in names])]
    for stage in sorted({training.stage for training in report.trainings}):
        runs = [training for training in report.trainings if training.stage == stage]
        figures = [
            curves(
                both(caption, stage=stage),
                [(run.name, colour[run.name], _series(run, key)) for run in runs],
                from_zero=from_zero,
            )
            for key, caption, from_zero in _CURVES
        ]
        parts.append(f'<div class="curves">{"".join(figures)}</div>')
    parts.append(_facts_table(report.trainings))
    return f'<div class="card">{"".join(parts)}</div>'


def _series(run: TrainingSummary, key: str) -> list[tuple[float, float]]:
    return [
        (float(entry["step"]), float(entry[key]))
        for entry in run.log
        if isinstance(entry.get("step"), int | float) and isinstance(entry.get(key), int | float)
    ]


def _plain(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def _facts_table(trainings: Sequence[TrainingSummary]) -> str:
    rows = []
    for run in trainings:
        facts = {**run.facts, **({"digest": run.digest} if run.digest else {})}
        cells = "".join(f"<dt>{escape(key)}</dt><dd>{escape(_plain(value))}</dd>" for key, value in facts.items())
        title = both("{name}, stage {stage}", name=run.name, stage=run.stage)
        rows.append(f"<h5>{title}</h5><dl class='facts'>{cells}</dl>")
    return f"<details><summary>{both('Settings of every run')}</summary>{''.join(rows)}</details>"


def cost_section(report: ReportInput) -> str:
    """Wall, CPU and GPU seconds of every stage, and the largest memory."""
    if not report.costs:
        return ""
    top = max(cost.cpu_s + cost.gpu_s for cost in report.costs)
    rows = "".join(
        f'<tr><th scope="row">{escape(cost.stage)}</th><td class="num">{seconds(cost.wall_s)}</td>'
        f'<td class="num">{cost.cpu_s:,.1f}</td><td class="num">{cost.gpu_s:,.1f}</td>'
        f'<td class="num">{size(cost.peak_rss_bytes) if cost.peak_rss_bytes else "n/a"}</td>'
        f'<td class="wide">{stacked_bar([("kept", cost.cpu_s), ("made", cost.gpu_s)], top)}</td></tr>'
        for cost in report.costs
    )
    sums = [seconds(sum(c.wall_s for c in report.costs))]
    sums += [f"{sum(getattr(c, key) for c in report.costs):,.1f}" for key in ("cpu_s", "gpu_s")]
    cells = "".join(f'<td class="num">{text}</td>' for text in sums)
    total = f'<tr class="total"><th scope="row">{both("all")}</th>{cells}<td></td><td></td></tr>'
    words = ("wall", "CPU seconds", "GPU seconds", "peak memory")
    head = f"<th>{both('stage')}</th>" + "".join(f'<th class="num">{both(word)}</th>' for word in words) + "<th></th>"
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}{total}</tbody></table></div>'


def _pairs(title: str, values: Mapping[str, str]) -> str:
    if not values:
        return ""
    cells = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in values.items())
    return f"<h4>{title}</h4><dl class='facts'>{cells}</dl>"


def origin_section(report: ReportInput) -> str:
    """The command, the machine, the digests, and the notes."""
    parts = []
    if report.command:
        parts.append(f"<h4>{both('Command')}</h4><pre>{escape(report.command)}</pre>")
    parts += [_pairs(both("Environment"), report.environment), _pairs(both("Digests"), report.digests)]
    if report.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
        parts.append(f"<h4>{both('Notes')}</h4><ul>{items}</ul>")
    body = "".join(parts)
    return f'<div class="card">{body}</div>' if body else ""
