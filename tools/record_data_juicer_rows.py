"""Ask Data-Juicer 1.6.1's own operators about rows: fields, lines, tables, papers. The tests compare ours.

Run by a Python that has py-data-juicer 1.6.1, beautifulsoup4, regex, nltk, opencv and opencc:

    python tools/record_data_juicer_rows.py

Writes ``tests/unit/ops/data_juicer_rows.json``. The rows are those of ``tests/unit/ops/tricky_rows.py``.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests" / "unit" / "ops"
STATS, META = "__dj__stats__", "__dj__meta__"


def operator(name: str, params: dict[str, Any]) -> Any:
    """An operator of Data-Juicer by its registered name."""
    kind = name.rpartition("_")[2]
    importlib.import_module(f"data_juicer.ops.{kind}.{name}")
    from data_juicer.ops.base_op import OPERATORS

    return OPERATORS.modules[name](**params)


def ask_filter(made: Any, row: dict[str, Any]) -> Any:
    """Whether the row stays."""
    sample = made.compute_stats_single({STATS: {}, META: {}, **copy.deepcopy(row)})
    return bool(made.process_single(sample))


def ask_mapper(made: Any, row: dict[str, Any]) -> Any:
    """The fields that changed; a list of rows for an operator that makes several of one."""
    sample = {STATS: {}, META: {}, **copy.deepcopy(row)}
    if type(made).__name__.startswith("LatexFigure"):
        columns = made.process_batched({key: [value] for key, value in sample.items()})
        count = len(columns["text"])
        return [
            {key: values[place] for key, values in columns.items() if key not in sample or values[place] != sample[key]}
            for place in range(count)
        ]
    if made.is_batched_op():
        columns = made.process_batched({key: [value] for key, value in sample.items()})
        out = {key: values[0] for key, values in columns.items()}
    else:
        out = made.process_single(sample)
    before = {STATS: {}, META: {}, **row}
    return {key: value for key, value in json.loads(json.dumps(out)).items() if value != before.get(key)}


def ask_sentences(params: dict[str, Any], rows: list[dict[str, Any]], known: dict[str, Any]) -> list[dict[str, Any]]:
    """The changed texts; the operator itself cannot be made without a download, so its parts are put together here."""
    from data_juicer.ops.common import get_sentences_from_document
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    facts = PunktParameters()
    facts.abbrev_types = set(known["abbreviations"])
    if "punkt" in params:
        facts.collocations = {tuple(pair) for pair in known["together"]}
        facts.sent_starters = set(known["starters"])
        facts.ortho_context.update(known["cases"])
    split = PunktSentenceTokenizer(facts).tokenize
    texts = [get_sentences_from_document(row["text"], model_func=split) for row in rows]
    return [{} if text == row["text"] else {"text": text} for text, row in zip(texts, rows, strict=True)]


def ask_each(name: str, params: dict[str, Any], rows: list[dict[str, Any]]) -> list[Any]:
    """The answer for every row, or the word ``error``."""
    made, found = operator(name, params), []
    ask = ask_filter if name.endswith("_filter") else ask_mapper
    for row in rows:
        try:
            found.append(ask(made, row))
        except Exception:  # noqa: BLE001 - what Data-Juicer raises is a fact to keep, whatever it is
            found.append("error")
    return found


def ask_lines(params: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """The texts after lines that many rows share are gone."""
    from datasets import Dataset

    made = operator("document_line_deduplicator", params)
    hashed = Dataset.from_list([made.compute_hash(dict(row)) for row in rows])
    return list(made.process(hashed)[0]["text"])


SUBPLOTS: list[dict[str, Any]] = [
    {},
    {"min_horizontal_lines": 2, "min_vertical_lines": 6, "min_confidence": 0.3},
    {"angle_tolerance": 1.0, "min_line_length": 60, "max_line_gap": 4, "hough_threshold": 60, "min_confidence": 0.6},
    {"canny_threshold1": 20, "canny_threshold2": 60, "any_or_all": "all", "angle_tolerance": 12.0},
]


def ask_subplots(names: list[str], folder: Path) -> list[Any]:
    """Per parameters and picture the lines that OpenCV finds, the stats, and whether a row with it stays."""
    import cv2

    found = []
    for params in SUBPLOTS:
        made, pictures = operator("image_subplot_filter", params), []
        search, lines_of = cv2.HoughLinesP, []
        cv2.HoughLinesP = lambda *args, search=search, kept=lines_of, **kwargs: (
            kept.append(search(*args, **kwargs)) or kept[-1]
        )
        for images in [[name] for name in names] + [names[:3], names[-2:]]:
            sample = {"images": [str(folder / name) for name in images], STATS: {}}
            del lines_of[:]
            stats = made.compute_stats_single(sample)[STATS]
            lines = [[] if lines is None else lines.reshape(-1, 4).tolist() for lines in lines_of]
            kept = bool(made.process_single(sample))
            plain = {
                key: json.loads(json.dumps(list(map(float, stats[key])))) for key in stats if key != "subplot_detected"
            }
            pictures.append({"images": images, "lines": lines, "stats": plain, "keep": kept})
        cv2.HoughLinesP = search
        found.append({"params": params, "pictures": pictures})
    return found


def main() -> int:
    """Record everything."""
    sys.path.insert(0, str(HERE))
    tricky, markup = importlib.import_module("tricky_rows"), importlib.import_module("tricky_markup")
    cases = []
    archives = tempfile.mkdtemp()
    markup.write_archives(Path(archives))
    os.chdir(archives)  # relative paths of archives start here
    for name, several in tricky.CASES.items():
        for params, rows in several:
            if name == "document_line_deduplicator":
                answers: Any = ask_lines(params, tricky.ROWS[rows])
            elif name == "sentence_split_mapper":
                known = tricky.PUNKT if "punkt" in params else {"abbreviations": tricky.built_in_abbreviations()}
                answers = ask_sentences(params, tricky.ROWS[rows], known)
            else:
                answers = ask_each(name, params, tricky.ROWS[rows])
            cases.append({"operator": name, "params": params, "rows": rows, "answers": answers})
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    about = "What py-data-juicer 1.6.1's operator code gives; made by tools/record_data_juicer_rows.py."
    pictures = importlib.import_module("tricky_pictures")
    with tempfile.TemporaryDirectory() as temp:
        pictures.write_grids(Path(temp))
        subplots = ",\n".join(json.dumps(case) for case in ask_subplots(list(pictures.grids()), Path(temp)))
    text = f'{{"about": {json.dumps(about)},\n"subplots": [\n{subplots}\n],\n"cases": [\n{lines}\n]}}\n'
    (HERE / "data_juicer_rows.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
