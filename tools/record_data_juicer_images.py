"""Ask Data-Juicer 1.6.1's own operators about generated pictures and fields, and keep the answers for the tests.

Run by a Python that has py-data-juicer 1.6.1, imagededup and what it needs:

    python tools/record_data_juicer_images.py

Writes ``tests/unit/ops/data_juicer_images.json``. The pictures are those of ``tests/unit/ops/tricky_pictures.py``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests" / "unit" / "ops"
STATS = "__dj__stats__"

FILTERS: list[tuple[str, dict[str, Any]]] = [
    ("image_shape_filter", {}),
    ("image_shape_filter", {"min_width": 50, "max_height": 80, "any_or_all": "any"}),
    ("image_shape_filter", {"min_width": 50, "max_height": 80, "any_or_all": "all"}),
    ("image_size_filter", {"min_size": "1kb", "max_size": "1.5KB"}),
    ("image_size_filter", {"min_size": "400", "max_size": "2KiB", "any_or_all": "all"}),
    ("image_aspect_ratio_filter", {}),
    ("image_aspect_ratio_filter", {"any_or_all": "all", "min_ratio": 0.5, "max_ratio": 2.0}),
    ("image_aspect_ratio_filter", {"min_ratio": 1.25, "max_ratio": 2.0, "min_closed_interval": False}),
    ("image_aspect_ratio_filter", {"min_ratio": 1.0, "max_ratio": 2.0, "reversed_range": True}),
]
RECORDS: list[dict[str, Any]] = [
    {"n": 3, "s": "b", "meta": {"v": 1.5, "t": "9", "l": [1, 2, 3], "g": "x"}},
    {"n": 1, "s": "a", "meta": {"v": 1.5, "t": "10", "l": [], "g": "y"}},
    {"n": 3, "s": "é", "meta": {"v": None, "t": "no number", "l": None, "g": "x"}},
    {"n": -2, "s": "B", "meta": {"v": -4.0, "t": "1e1", "l": [7], "g": None}},
    {"n": 8, "s": "", "meta": {"v": 9.0, "t": "", "l": [0.5, 0.5], "g": "z"}},
    {"n": 3, "s": "aa", "meta": {"v": 1.5, "t": " 7 ", "l": [2], "g": "y"}},
    {"n": 1, "s": "中", "meta": {"v": 0.0, "t": "-inf", "l": [1, 2], "g": "x"}},
    {"n": 0, "s": "b", "meta": {"v": 2.0, "t": "9", "l": [4, 6], "g": "w"}},
]
SELECTORS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("topk_specified_field_selector", {"field_key": key, "topk": 3, "reverse": reverse})
        for key in ("n", "s", "meta.v", "meta.t", "meta.l")
        for reverse in (True, False)
    ),
    ("topk_specified_field_selector", {"field_key": "n", "top_ratio": 0.7}),
    ("topk_specified_field_selector", {"field_key": "n", "top_ratio": 0.7, "topk": 2}),
    ("topk_specified_field_selector", {"field_key": "n"}),
    ("topk_specified_field_selector", {"topk": 2}),
    *(
        ("range_specified_field_selector", {"field_key": key, **bounds})
        for key in ("n", "meta.v", "meta.t", "meta.l")
        for bounds in (
            {"lower_rank": 2, "upper_rank": 5},
            {"lower_percentile": 0.3, "upper_percentile": 0.8},
            {"lower_percentile": 0.1, "lower_rank": 3, "upper_percentile": 1.0, "upper_rank": 7},
            {"lower_rank": 6, "upper_rank": 4},
            {"lower_rank": 2},
        )
    ),
    *(
        ("frequency_specified_field_selector", {"field_key": key, **counts, "reverse": reverse})
        for key in ("n", "s", "meta.g")
        for counts in ({"topk": 2}, {"top_ratio": 0.5}, {"topk": 1, "top_ratio": 0.9})
        for reverse in (True, False)
    ),
    ("tags_specified_field_selector", {"field_key": "meta.g", "target_tags": ["x", "w"]}),
    ("tags_specified_field_selector", {"field_key": "s", "target_tags": ["b", ""]}),
]


def operator(kind: str, name: str, **params: Any) -> Any:
    """An operator of Data-Juicer by its registered name."""
    module = importlib.import_module(f"data_juicer.ops.{kind}.{name}")
    return getattr(module, "".join(part.capitalize() for part in name.split("_")))(**params)


def plain(value: Any) -> Any:
    """JSON types only; NaN and infinities do not occur here."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    assert not isinstance(value, float) or math.isfinite(value)
    return value


def ask_filter(name: str, params: dict[str, Any], rows: list[list[str]]) -> list[Any]:
    """Per row ``{stats, keep}``, or the word ``error``."""
    found: list[Any] = []
    for images in rows:
        sample: dict[str, Any] = {"text": "", "images": images, STATS: {}}
        made = operator("filter", name, **params)
        try:
            if made.is_batched_op():
                columns = made.compute_stats_batched({key: [value] for key, value in sample.items()})
                sample, keep = (
                    {key: value[0] for key, value in columns.items()},
                    bool(next(iter(made.process_batched(columns)))),
                )
            else:
                sample = made.compute_stats_single(sample)
                keep = bool(made.process_single(sample))
        except Exception:  # noqa: BLE001 - what Data-Juicer raises is a fact to keep, whatever it is
            found.append("error")
            continue
        found.append({"stats": {key: plain(value) for key, value in sample[STATS].items()}, "keep": keep})
    return found


def ask_hashes(method: str, rows: list[list[str]]) -> list[str]:
    """Per row the concatenated hashes, or the word ``error``."""
    made, found = operator("deduplicator", "image_deduplicator", method=method), []
    for images in rows:
        try:
            found.append(made.compute_hash({"text": "", "images": images})["__dj__imagehash"])
        except Exception:  # noqa: BLE001 - see above
            found.append("error")
    return found


def ask_kept(rows: list[list[str]], hashes: list[str], **params: Any) -> list[int]:
    """Numbers of the rows that de-duplication keeps, rows with errors left out."""
    from datasets import Dataset

    made = operator("deduplicator", "image_deduplicator", **params)
    good = [number for number, value in enumerate(hashes) if value != "error"]
    samples = [made.compute_hash({"n": n, "text": f"t{n % 2}", "images": rows[n]}) for n in good]
    kept, _ = made.process(Dataset.from_list(samples), 0)
    return list(kept["n"])


def ask_selector(name: str, params: dict[str, Any]) -> list[int]:
    """Numbers of the chosen rows, sorted."""
    from datasets import Dataset

    data = Dataset.from_list([{**record, "row": number} for number, record in enumerate(RECORDS)])
    return sorted(operator("selector", name, **params).process(data)["row"])


def ask_blur(folder: Path, kind: str, radius: float) -> str:
    """Digest of the pixels of a blurred picture."""
    from PIL import Image

    made = operator("mapper", "image_blur_mapper", p=1.0, blur_type=kind, radius=radius, save_dir=str(folder / "new"))
    out = made.process_single({"text": "", "images": [str(folder / "rgb.png")], "__dj__source_file__": []})
    with Image.open(out["images"][0]) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def main() -> int:
    """Record everything."""
    sys.path.insert(0, str(HERE))
    tricky = importlib.import_module("tricky_pictures")
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        tricky.draw(folder)
        rows = [[str(folder / name) for name in row] for row in tricky.ROWS]
        hashes = {method: ask_hashes(method, rows) for method in ("phash", "dhash", "whash", "ahash")}
        gold = {
            "about": "What py-data-juicer 1.6.1's operator code gives; made by tools/record_data_juicer_images.py.",
            "filters": [[name, params, ask_filter(name, params, rows)] for name, params in FILTERS],
            "hashes": hashes,
            "kept": {
                "plain": ask_kept(rows, hashes["phash"], method="phash"),
                "with_text": ask_kept(rows, hashes["phash"], method="phash", consider_text=True),
            },
            "records": RECORDS,
            "selectors": [[name, params, ask_selector(name, params)] for name, params in SELECTORS],
            "blur": {kind: ask_blur(folder, kind, 2) for kind in ("gaussian", "mean", "box")},
        }
    text = json.dumps(gold, ensure_ascii=False, indent=None, separators=(",", ":")).replace("],[", "],\n[")
    (HERE / "data_juicer_images.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
