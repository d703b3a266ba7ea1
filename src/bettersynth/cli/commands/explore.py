"""Look at a data set: sizes, distributions, duplicates, what is broken.

Reads a Data-Juicer, LLaVA or Parquet file, a folder of them, or a processed folder (then with every row's fate).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bettersynth.cli.kit import typed_command
from bettersynth.cli.render import Progress, print_facts, print_json, print_rows
from bettersynth.core.errors import DataError
from bettersynth.core.lang import t

EXAMPLES = ("bettersynth explore input/pretrain_stage_1_10k/mgm_pretrain_stage_1_10k.jsonl --html page",)
_FAULTS = ("empty_caption", "markup", "mojibake", "image_tokens_differ")
_BARS = "▁▂▃▄▅▆▇█"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``explore``."""
    add = parser.add_argument
    add("dataset", nargs="?", type=Path, metavar="DATASET", help=t("data file or folder (default: the kit's seed set)"))
    add("--workspace", type=Path, default=Path(), metavar="DIR", help=t("kit folder (default: this one)"))
    add("--image-root", type=Path, metavar="DIR", help=t("where picture paths start (default: beside the file)"))
    add("--text-key", default="text", metavar="KEY", help=t("text column (default: text)"))
    add("--image-key", default="images", metavar="KEY", help=t("picture column (default: images)"))
    add("--html", type=Path, metavar="DIR", help=t("also write a page into this folder"))
    add("--json", action="store_true", help=t("print JSON"))


def run(args: argparse.Namespace) -> int:
    """Read once, print, and write the page when asked for."""
    from bettersynth.core.artifact import Artifact
    from bettersynth.engine.analyze import analyze
    from bettersynth.experiment.workspace import Workspace

    dataset = args.dataset or Workspace(args.workspace).seed_data
    if next(dataset.glob("input/pretrain_stage_1*"), None) is not None:  # a kit folder
        dataset = Workspace(dataset).seed_data
    root = args.image_root
    processed = Artifact.load(dataset, kind="dataset") if dataset.is_dir() and Artifact.exists(dataset) else None
    source = dataset
    if processed is not None:
        source = dataset if "data_files" in processed.facts else dataset / str(processed.facts["data"])
        roots = processed.run.get("image_roots", ())
        root = root or (Path(roots[0]) if roots else None)
    Progress()(t("reading {path}", path=source))
    facts = analyze(source, image_root=root, text_key=args.text_key, image_key=args.image_key)
    page = _page(args.html, dataset, source, facts, processed) if args.html else None
    if args.json:
        print_json({"dataset": str(dataset), **facts, **({"page": str(page)} if page else {})})
    else:
        _print(source, facts)
    if page and not args.json:
        print(t("page: {path}", path=page))
    if not facts["rows"] and facts["problems"]:
        hint = _pairs_hint(source) if facts["plain_pairs"] else t("name the columns with --text-key and --image-key")
        raise DataError(t("no row of this data set can be read"), where=str(source), hint=hint)
    if facts["plain_pairs"]:
        Progress().done(_pairs_hint(source))
    return 0


def _pairs_hint(source: Path) -> str:
    command = f"bettersynth convert pairs-to-dj --input {source} --output rows.jsonl"
    return t("plain pairs become rows with: {command}", command=command)


def _print(source: Path, facts: dict[str, Any]) -> None:
    print_facts({t("data set"): source, t("rows"): facts["rows"]})
    print()
    counted = [(t(name.replace("_", " ")), count) for name, count in facts["counts"].items()]
    counted += [(t("repeated {what}", what=t(name)), count) for name, count in facts["duplicates"].items()]
    shares = [(name, count, _percent(count, facts["rows"])) for name, count in counted]
    if facts["near_duplicates"]:
        shares.append(
            (t("nearly repeated text"), facts["near_duplicates"], _percent(facts["near_duplicates"], facts["rows"]))
        )
    print_rows((t("rows with"), t("count"), ""), shares, "<>>")
    print()
    scripts = [(name, count, _percent(count, facts["rows"])) for name, count in facts["scripts"].items()]
    print_rows((t("main script"), t("count"), ""), scripts, "<>>")
    if facts["stats"]:
        print()
        keys = ("min", "q1", "median", "q3", "max", "mean")
        rows = [
            (t(name), *(f"{values[key]:g}" for key in keys), _spark(facts["histograms"][name]["counts"]))
            for name, values in facts["stats"].items()
        ]
        header = [t(key) for key in ("min", "lower quarter", "median", "upper quarter", "max", "mean")]
        print_rows((t("measure"), *header, t("distribution")), rows, "<>>>>>>")
    print()
    if facts["outliers"]:
        ends = [
            (t(name), t(end), f"{row['value']:g}", row["id"], row["image"] or "-")
            for name, both in facts["outliers"].items()
            for end, rows in both.items()
            for row in rows[:1]
        ]
        print_rows((t("measure"), "", t("value"), "id", t("picture")), ends, "<<><<")
        print()
    if facts["suggestions"]:
        print(t("recipe lines that cut off the outermost 1 % on each side, to begin with:"))
        print("\n".join(facts["suggestions"]))
        print()
    problems = [
        (t(name), count, ", ".join(facts["examples"].get(name, ()))) for name, count in _problems(facts).items()
    ]
    if problems:
        print_rows((t("problem"), t("count"), t("examples")), problems, "<>")
    else:
        print(t("no problem found") if facts["rows"] else t("the data set has no row"))


def _problems(facts: dict[str, Any]) -> dict[str, int]:
    """What a recipe would mend or drop, with what cannot be read first."""
    found = dict(facts["problems"])
    found |= {name.replace("_", " "): facts["counts"].get(name, 0) for name in _FAULTS}
    found |= {f"repeated {name}": count for name, count in facts["duplicates"].items()}
    found["nearly repeated text"] = facts["near_duplicates"]
    return {name: count for name, count in found.items() if count}


def _percent(count: int, rows: int) -> str:
    return f"{100 * count / rows:.1f} %" if rows else "-"


def _spark(counts: list[int]) -> str:
    top = max(counts, default=0)
    return "".join(_BARS[round((len(_BARS) - 1) * count / top)] if count else " " for count in counts) if top else ""


def _page(out: Path, dataset: Path, source: Path, facts: dict[str, Any], processed: Any) -> Path:
    from bettersynth.core.record import DatasetSummary, ReportInput
    from bettersynth.experiment.summary import dataset_summary, environment
    from bettersynth.media.thumbnail import thumbnail
    from bettersynth.report.build import PAGE, build_report

    if processed is not None:
        summary = dataset_summary(dataset, name=dataset.name)
    else:
        drawn = {name: {"edges": h["edges"], "before": h["counts"]} for name, h in facts["histograms"].items()}
        summary = DatasetSummary(
            *(source.name, facts["rows"]), histograms=drawn, galleries=_outliers(facts), source=source.name
        )
    found = [("{n} rows: {what}", name.replace("_", " "), count) for name, count in facts["counts"].items()]
    found += [("repeated {what}: {n}", name, count) for name, count in facts["duplicates"].items()]
    notes = [t(template, what=t(what), n=count) for template, what, count in found if count]
    notes += [f"{problem}: {count}" for problem, count in facts["problems"].items()]
    notes += [t("nearly repeated text: {n}", n=facts["near_duplicates"])] if facts["near_duplicates"] else []
    notes += [t("{n} rows mainly in this script: {name}", n=n, name=name) for name, n in facts["scripts"].items()]
    notes += [t("a recipe line to begin with: {line}", line=line) for line in facts["suggestions"]]
    page = ReportInput(
        title=source.name,
        command=typed_command(),
        is_demo=False,
        datasets=(summary,),
        environment=environment(),
        notes=tuple(notes),
    )
    build_report(page, out, root=dataset if processed is not None else source.parent, thumbnail=thumbnail)
    return out / PAGE


def _outliers(facts: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Galleries of the rows with the smallest and largest values of each measure."""
    from bettersynth.core.record import Picture

    galleries = {}
    for name, both in facts["outliers"].items():
        for end, rows in both.items():
            shown = [
                Picture(row["image"], row["caption"], note=f"{row['id']}: {row['value']:g}")
                for row in rows
                if row["image"]
            ]
            if shown:
                galleries[f"{t(name)}: {t(end)}"] = tuple(shown)
    return galleries
