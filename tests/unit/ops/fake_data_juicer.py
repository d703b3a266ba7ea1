"""A stand-in for Data-Juicer, small enough for tests: the same surface, operators that do as little as possible.

``install(folder)`` writes it as a package and returns a "Python" that finds it.
"""

from __future__ import annotations

import sys
from pathlib import Path

BASE = """
class Registry:
    def __init__(self):
        self.modules = {}
    def register_module(self, name):
        def put(cls):
            if name in self.modules:
                raise KeyError(f"{name} is already registered")
            self.modules[name] = cls
            return cls
        return put

OPERATORS = Registry()

class OP:
    batched = False
    def __init__(self, skip_op_error=True, **kwargs):
        self.more = kwargs
        assert skip_op_error is False, "errors must reach the adapter"
    def is_batched_op(self):
        return self.batched

class Filter(OP): pass
class Mapper(OP): pass
class Deduplicator(OP): pass
class Selector(OP): pass
class Grouper(OP): pass
class Aggregator(OP): pass
class Pipeline(OP): pass
"""

OPS = """
import os, random
from data_juicer.ops.base_op import *
S, M = "__dj__stats__", "__dj__meta__"

@OPERATORS.register_module("video_duration_filter")
class Length(Filter):
    batched = True
    def __init__(self, min_duration=0, **kwargs):
        super().__init__(**kwargs)
        self.least = min_duration
        if self.least > 1000:
            raise ValueError("too much is asked")
    def compute_stats_batched(self, samples):
        if any("bad" in text for text in samples["text"]):
            raise ValueError("a bad text in the batch")
        for text, stat in zip(samples["text"], samples[S]):
            stat["letters"] = len(text)
        return samples
    def process_batched(self, samples):
        return [stat["letters"] >= self.least for stat in samples[S]]

@OPERATORS.register_module("video_resolution_filter")
class Single(Filter):
    def compute_stats_single(self, sample):
        sample[S]["n_images"] = len(sample["images"])
        return sample
    def process_single(self, sample):
        return bool(sample[S]["n_images"])

@OPERATORS.register_module("video_captioning_from_summarizer_mapper")
class Doubler(Mapper):
    batched = True
    def process_batched(self, samples):
        out = {key: [] for key in samples}
        for place, text in enumerate(samples["text"]):
            if "bad" in text:
                raise RuntimeError("cannot double this")
            if "die" in text:
                os._exit(3)
            for number in range(text.count("x")):
                for key in samples:
                    out[key].append(samples[key][place])
                out["text"][-1] = text + str(number)
        return out

@OPERATORS.register_module("video_trajectory_overlay_mapper")
class Forgetful(Mapper):
    batched = True
    def process_batched(self, samples):
        return {"text": [text.upper() for text in samples["text"] for _ in range(2)]}

@OPERATORS.register_module("video_tagging_from_audio_mapper")
class Tags(Mapper):
    def process_single(self, sample):
        sample[M]["tags"] = sorted({sample["text"][:1]})
        sample["query"] = f"what is {sample['id']}?"
        sample["images"] = sample["images"] + ["/new/made.png"]
        sample["luck"] = random.random()
        return sample

@OPERATORS.register_module("video_depth_estimation_mapper")
class Missing(Mapper):
    def process_single(self, sample):
        import a_package_that_nobody_has

@OPERATORS.register_module("video_deduplicator")
class Same(Deduplicator):
    def compute_hash(self, sample):
        sample["__dj__hash"] = sample["text"].lower().encode()
        return sample
    def process(self, dataset, show_num=0):
        seen, kept = set(), []
        for row in dataset.rows:
            if row["__dj__hash"] not in seen:
                seen.add(row["__dj__hash"])
                kept.append(row)
        return dataset.of(kept), {}

@OPERATORS.register_module("image_ohem_selector")
class Longest(Selector):
    def __init__(self, topk=None, **kwargs):
        super().__init__(**kwargs)
        self.topk = topk
    def process(self, dataset):
        return dataset.of(sorted(dataset.rows, key=lambda row: -len(row["text"]))[: self.topk])

@OPERATORS.register_module("naive_grouper")
class ByFirst(Grouper):
    def process(self, dataset):
        groups = {}
        for row in dataset.rows:
            groups.setdefault(row["text"][:1], []).append(row)
        return [{key: [row[key] for row in rows] for key in rows[0]} for rows in groups.values()]

@OPERATORS.register_module("nested_aggregator")
class Join(Aggregator):
    def process_single(self, sample):
        sample["__dj__batch_meta__"]["all"] = " ".join(sample["text"])
        return sample
"""

DATA = """
class Dataset:
    def __init__(self, rows):
        self.rows = rows
    @classmethod
    def from_list(cls, rows):
        return cls(rows)
    def of(self, rows):
        return Dataset(rows)
    def select(self, places):
        return Dataset([self.rows[place] for place in places])
    def __getitem__(self, name):
        return [row[name] for row in self.rows]
"""


def install(folder: Path) -> Path:
    """Write the packages and a command that runs this Python with them."""
    packages = folder / "packages"
    files = {
        "data_juicer/__init__.py": "",
        "data_juicer/ops/__init__.py": OPS,
        "data_juicer/ops/base_op.py": BASE,
        "data_juicer/core/__init__.py": "",
        "data_juicer/core/data.py": "def NestedDataset(rows):\n    return rows\n",
        "data_juicer/utils/__init__.py": "",
        "data_juicer/utils/lazy_loader.py": "class LazyLoader:\n    pass\n",
        "data_juicer/utils/mm_utils.py": "class SpecialTokens:\n    pass\n",
        "datasets.py": DATA,
    }
    for name, text in files.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(text, encoding="utf-8")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return python
