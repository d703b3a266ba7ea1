"""Says of every operator of Data-Juicer 1.6.1 what it is here, and writes docs/operators.md.

    python tools/operator_table.py                     write the table from the recorded facts and our operators
    python tools/operator_table.py --check             exit 1 when the table is not current
    python tools/operator_table.py --record PYTHON     ask a Python with Data-Juicer: parameters, then a trial of each

The trial runs each operator through the adapter, as a recipe of one step, on sample rows: offline, without installing
anything. Status: ``ran``; ``constructs`` (made, but its rows failed, or none of the sample rows has what it reads);
``model`` (cannot be made without a model, a file or a network); ``refuses``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FACTS = ROOT / "src" / "bettersynth" / "ops" / "foreign" / "data_juicer_1_6_1.json"
TABLE = ROOT / "docs" / "operators.md"
STATUS = {
    "native": "native",
    "ran": "adapter: ran on sample data",
    "constructs": "adapter: constructs",
    "model": "adapter: needs a model, a package or a network",
    "refuses": "refused",
}
# What a trial gives an operator that its own defaults do not make runnable offline.
PARAMS: dict[str, dict[str, Any]] = {
    "flagged_words_filter": {"flagged_words_dir": "{assets}"},
    "stopwords_filter": {"stopwords_dir": "{assets}"},
    "specified_field_filter": {"field_key": "meta.part", "target_value": [0, 1]},
    "specified_numeric_field_filter": {"field_key": "meta.part", "min_value": 0},
    "general_field_filter": {"filter_condition": "text_len > 1"},
    "tags_specified_field_selector": {"field_key": "meta.part", "target_tags": ["0"]},
    "range_specified_field_selector": {"field_key": "meta.part", "lower_rank": 0, "upper_rank": 10},
    "topk_specified_field_selector": {"field_key": "meta.part", "topk": 4},
    "frequency_specified_field_selector": {"field_key": "meta.part", "topk": 1},
    "random_selector": {"select_num": 5},
    "python_lambda_mapper": {"lambda_str": "lambda sample: sample"},
    "python_file_mapper": {"file_path": "{assets}/mapper.py", "function_name": "same"},
    "replace_content_mapper": {"pattern": "a", "repl": "b"},
    "text_chunk_mapper": {"max_len": 30, "split_pattern": "[.]"},
    "key_value_grouper": {"group_by_keys": ["query"]},
    "remove_column_mapper": {"column_names": ["extra"]},
    "image_blur_mapper": {"p": 1.0, "save_dir": "{assets}"},
    "download_file_mapper": {"download_field": "url"},
    "s3_download_file_mapper": {"download_field": "url"},
    "s3_upload_file_mapper": {"upload_field": "url", "s3_bucket": "none"},
    "video_extract_frames_mapper": {"frame_dir": "{assets}/frames"},
    "video_split_by_key_frame_mapper": {"save_dir": "{assets}/cut"},
    "video_split_by_duration_mapper": {"save_dir": "{assets}/cut", "split_duration": 1},
    "video_resize_aspect_ratio_mapper": {"save_dir": "{assets}/cut"},
    "video_resize_resolution_mapper": {"save_dir": "{assets}/cut", "min_width": 64},
    "llm_extract_mapper": {"input_keys": ["text"], "output_schema": {"kind": "a word"}},
    "entity_attribute_aggregator": {"entity": "lamp", "attribute": "colour"},
    "most_relevant_entities_aggregator": {"entity": "lamp", "query_entity_type": "thing"},
    "image_ohem_selector": {"topk": 3},
}
_NEEDS = re.compile(
    r"(?i)(couldn't connect|offline|huggingface|connection|download|resolve host|max retries|outgoing traffic|api_key"
    r"|credentials|not a (local folder|valid model)|no such file|failed to install|no module named|pretrained"
    r"|name resolution|name or service|urlopen|git'|clone|LookupError|label-studio|checkpoint|is not installed|cuda|gpu"
    r"|OPENAI)"
)
_ABOUT = """\
*Native* ones are ours and run anywhere. *Adapter*: Data-Juicer's own operator, in a process of its own, inside our
accounting and quarantine; it needs a Python with `py-data-juicer` 1.6.1: the `data-juicer` extra in this environment,
or one in an environment of its own (`make data-juicer-venv`), named by `BETTERSYNTH_DATA_JUICER_PYTHON=PATH` or by the
key `data_juicer_python` of a step. Parameters of all of them are checked before any work, also where Data-Juicer is not
installed. It runs offline unless `HF_HUB_OFFLINE=0`; `BETTERSYNTH_DATA_JUICER_TIMEOUT_S` (600) limits one batch.

The trial ran offline, each operator as a recipe of one step, on twelve rows with text, a picture, a sound, a clip and
a dialogue. *Constructs*: it was made, but these rows were not what it reads. `make data-juicer-check` repeats the trial
in an environment with Data-Juicer's pins.

Where the adapter differs from `dj-process`: a row that fails is set aside alone; selectors keep the data set's order;
groupers number the groups (`stats.data_juicer_group`) instead of merging rows; an aggregator keeps the first row of
each group with its result as a stat; no package is installed behind your back."""
_MODEL_KEYS = frozenset(("api_model", "api_or_hf_model", "hf_model", "api_endpoint"))


_CLIP = """
import sys, av, numpy as np
with av.open(sys.argv[1], "w") as out:
    stream = out.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    for number in range(20):
        picture = np.full((64, 96, 3), number * 10, np.uint8)
        picture[10:40, number * 2 : number * 2 + 20] = 255
        for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
            out.mux(packet)
    for packet in stream.encode():
        out.mux(packet)
"""


def samples(folder: Path, python: str) -> Path:
    """Rows with text, pictures, a sound, a dialogue, and a clip if ``python`` can make one."""
    import subprocess
    import wave

    from benchmarks.data import Writer, _picture, np
    from PIL import Image

    writer, pixels = Writer(7), np.random.default_rng(7)
    with wave.open(str(folder / "tone.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes((np.sin(np.arange(8000) / 5) * 9000).astype("<i2").tobytes())
    subprocess.run([python, "-c", _CLIP, str(folder / "clip.mp4")], check=False, stderr=subprocess.DEVNULL)
    (folder / "flagged_words.json").write_text('{"en": ["bad"]}')
    (folder / "stopwords.json").write_text('{"en": ["the", "a", "of"]}')
    (folder / "mapper.py").write_text("def same(sample):\n    return sample\n")
    rows = []
    for row in range(12):
        image: Image.Image = _picture(pixels, 96, 64)
        image.save(folder / f"{row}.jpg")
        talk = [("what is this?", "a lamp."), ("which colour?", f"number {row}.")]
        rows.append(
            {
                "id": f"r{row}",
                "text": f"<__dj__image> {writer.caption()} The lamp stands at the table. <|__dj__eoc|>",
                "images": [f"{row}.jpg"],
                "audios": ["tone.wav"],
                "videos": ["clip.mp4"] if (folder / "clip.mp4").is_file() else [],
                "query": "What is the capital of France?" if row % 2 else "How many legs has a dog?",
                "response": "The capital of France is Paris. It lies at the river Seine.",
                "history": talk,
                "system": "Answer briefly.",
                "instruction": "Answer the question.",
                "prompt": "Say it.",
                "messages": [{"role": "user", "content": talk[0][0]}, {"role": "assistant", "content": talk[0][1]}],
                "meta": {"part": row % 3},
                "extra": "none",
                "url": "",
            }
        )
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def record(python: str, names: list[str]) -> None:
    """Write the facts file: parameters of all operators, then how the trial of each ended."""
    from bettersynth.ops.foreign import _facts
    from bettersynth.ops.foreign._process import PYTHON_VARIABLE, TIMEOUT_VARIABLE, server

    os.environ |= {PYTHON_VARIABLE: python, TIMEOUT_VARIABLE: os.environ.get(TIMEOUT_VARIABLE, "60")}
    old = json.loads(FACTS.read_text(encoding="utf-8"))["operators"] if FACTS.is_file() else {}
    found = server(python).ask({"do": "facts"})[0]["facts"]
    for name, about in found.items():
        about.update({key: value for key, value in old.get(name, {}).items() if key not in about})
    _save(found)
    _facts.all_facts.cache_clear()
    with tempfile.TemporaryDirectory(prefix="trial-") as temp:
        data = samples(Path(temp), python)
        for number, name in enumerate(names or list(found), 1):
            server(python).deaths = 0
            outcome = trial(name, data, Path(temp) / "out" / name)
            for key in ("status", "note", "changes", "is_one_to_one"):
                found[name].pop(key, None)
            found[name].update(outcome)
            print(f"{number:>3} {name:<48}{outcome['status']:<12}{outcome.get('note', '')[:90]}", flush=True)
            _save(found)


def _save(found: Mapping[str, Any]) -> None:
    from bettersynth.ops.foreign._facts import VERSION

    lines = [f"{json.dumps(name)}: {json.dumps(about, sort_keys=True)}" for name, about in sorted(found.items())]
    body = ",\n".join(lines)
    FACTS.write_text(f'{{"version": "{VERSION}", "operators": {{\n{body}\n}}}}\n', encoding="utf-8")


def trial(name: str, data: Path, out: Path) -> dict[str, Any]:
    """How one operator fares as the only step of a recipe; Data-Juicer's own also where ours exists."""
    from bettersynth.config.load import parse_yaml
    from bettersynth.config.recipe import build_recipe
    from bettersynth.core.errors import BetterSynthError
    from bettersynth.engine.local import process
    from bettersynth.ops import _catalog
    from bettersynth.ops.foreign._kinds import foreign_class

    cls = foreign_class(name)
    if cls.facts.refusal:  # type: ignore[attr-defined]
        return {"status": "refuses", "note": cls.facts.refusal}  # type: ignore[attr-defined]
    params = json.loads(json.dumps(PARAMS.get(name, {})).replace("{assets}", str(data.parent)))
    steps: list[Any] = [{name: params}]
    if cls.facts.kind == "aggregator":  # type: ignore[attr-defined]
        steps.insert(0, {"key_value_grouper": {"group_by_keys": ["query"]}})
    text = json.dumps({"dataset_path": str(data), "max_failed_ratio": 1, "process": steps})
    own = _catalog.Catalog.is_foreign
    _catalog.Catalog.is_foreign = lambda self, asked: asked == name or own(self, asked)  # type: ignore[method-assign]
    try:
        artifact = process(build_recipe(parse_yaml(text, name="trial"), base=data.parent), out=out, workers=1)
    except BetterSynthError as error:
        reason = _line(str(error.got or error.message))
        return {"status": "model" if _NEEDS.search(reason) else "refuses", "note": reason}
    finally:
        _catalog.Catalog.is_foreign = own  # type: ignore[method-assign]
    bad = [json.loads(line) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    if bad:
        reason = _line(bad[0]["error"])
        share = f"{len(bad)} of 12 rows: " if len(bad) < 12 else ""
        if share:
            return {"status": "ran", "note": share + reason}
        return {"status": "model" if _NEEDS.search(reason) else "constructs", "note": reason}
    rows = [json.loads(line) for line in (out / str(artifact.facts["data"])).read_text(encoding="utf-8").splitlines()]
    missing = _modality(name, data)
    if missing:
        return {"status": "constructs", "note": f"no {missing} in the trial's rows"}
    asks = sorted(set(cls.facts.params) & _MODEL_KEYS)  # type: ignore[attr-defined]
    if asks:
        return {"status": "model", "note": f"asks a model ({asks[0]}); without one it answered nothing, in silence"}
    models = sorted(name for name in cls.facts.params if re.search(r"^hf_|_model$|^model_path$", name))  # type: ignore[attr-defined]
    note = {"note": f"these rows did not need its model ({models[0]})"} if models else {}
    return {"status": "ran", **note, **_changed(data, rows)}


def _modality(name: str, data: Path) -> str:
    """What the operator is about, when the sample rows have none of it."""
    with data.open(encoding="utf-8") as handle:
        row = json.loads(handle.readline())
    return "video" if "video" in name and not row["videos"] else ""


def _line(text: str) -> str:
    text = re.sub(r"/\S+/", "", text)
    return text.splitlines()[0][:160] if text else ""


def _changed(data: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    before = {row["id"]: row for row in map(json.loads, data.read_text(encoding="utf-8").splitlines())}
    changes: dict[str, None] = {}
    for row in rows:
        old = before[row["id"]]
        changes.update(dict.fromkeys(key for key in (*old, *row) if old.get(key) != row.get(key)))
    return {"changes": sorted(changes), "is_one_to_one": [row["id"] for row in rows] == list(before)}


def native_names() -> list[str]:
    """What is ours, by name."""
    from bettersynth.ops._catalog import OPERATORS

    return OPERATORS.names()


def table(facts: Mapping[str, Mapping[str, Any]], native: list[str]) -> str:
    """The page."""
    states = {name: "native" if name in native else about.get("status", "") for name, about in facts.items()}
    counts = Counter(states.values())
    lines = [
        "# Operators",
        "",
        "Written by `tools/operator_table.py`; do not edit.",
        f"What each of the {len(facts)} operators of Data-Juicer 1.6.1 is here:",
        "",
        *(f"* **{STATUS[state]}**: {counts[state]}" for state in STATUS if counts[state]),
        "",
        *_ABOUT.splitlines(),
        "",
        "| operator | kind | here | note |",
        "| --- | --- | --- | --- |",
    ]
    for name, about in sorted(facts.items(), key=lambda item: (item[1]["kind"], item[0])):
        note = "" if states[name] == "native" else str(about.get("note", "")).replace("|", "\\|")
        lines.append(f"| `{name}` | {about['kind']} | {STATUS.get(states[name], '?')} | {note} |")
    own = [name for name in native if name not in facts]
    lines += ["", f"## Ours alone ({len(own)})", "", ", ".join(f"`{name}`" for name in own) + ".", ""]
    return "\n".join(lines)


def main() -> int:
    """Write or check the table, after recording facts if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="with --record: try only these")
    parser.add_argument("--record", metavar="PYTHON", help="a Python with Data-Juicer 1.6.1")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the table is not current")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.record:
        record(args.record, args.names)
    page = table(json.loads(FACTS.read_text(encoding="utf-8"))["operators"], native_names())
    if args.check:
        is_current = TABLE.is_file() and TABLE.read_text(encoding="utf-8") == page
        print(
            "docs/operators.md is current"
            if is_current
            else "docs/operators.md is not current: run tools/operator_table.py"
        )
        return 0 if is_current else 1
    TABLE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
