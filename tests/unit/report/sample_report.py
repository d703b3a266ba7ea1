"""A realistic report for the tests of this folder, and to look at the page: run this file with an output folder."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from bettersynth.core.record import (
    Accounting,
    Comparison,
    DatasetSummary,
    EvalResult,
    FilterQuality,
    Interval,
    Picture,
    ReportInput,
    StageCost,
    TrainingSummary,
)

PROVENANCE = {
    "checkpoint": "3f2a" * 8,
    "prompt": "a1b2" * 8,
    "decoding": "greedy, at most 16 tokens",
    "predictions": "77ee" * 8,
}
CONDITIONS = {
    "raw": 18.4,
    "random_half_twice": 19.1,
    "cluster_uniform": 21.0,
    "quality": 37.2,
    "balanced": 44.9,
    "clean_ceiling": 47.3,
}


def score(task: str, protocol: str, value: float, *, chance: float = 3.1, seeds: int = 5) -> EvalResult:
    """A score with a plausible interval and per-seed values."""
    noise = random.Random(f"{protocol}{value}")
    return EvalResult(
        task,
        protocol,
        Interval(value, value - 3.2, value + 3.1),
        600,
        chance,
        "the most frequent answer",
        value - 3.2 <= chance,
        {"sign": (value + 6, 300), "number": (value - 8, 180), "colour": (value - 3, 120)},
        PROVENANCE,
        tuple(value + noise.uniform(-2.5, 2.5) for _ in range(seeds)),
    )


def comparison(protocol: str, b: str, score_a: float, score_b: float, verdict: str) -> Comparison:
    """``b`` against the raw baseline."""
    gap = score_b - score_a
    return Comparison(
        protocol.split("-")[0], protocol, "raw", b, Interval(score_a, score_a - 3, score_a + 3),
        Interval(score_b, score_b - 3, score_b + 3), Interval(gap, gap - 2.9, gap + 2.8), 100 * gap / score_a,
        0.0004 if verdict == "better" else 0.31, 0.0021 if verdict == "better" else 0.62, 5, verdict,
    )  # fmt: skip


def training(name: str, stage: int, level: float) -> TrainingSummary:
    """A falling loss with noise, and a cosine learning rate."""
    noise = random.Random(f"{name}{stage}")
    steps = 90 if stage == 1 else 60
    log = tuple(
        {
            "step": step,
            "loss": level + 2.6 * math.exp(-step / 18) + noise.uniform(-0.08, 0.08),
            "lr": (1e-3 if stage == 1 else 2e-5) * 0.5 * (1 + math.cos(math.pi * step / steps)),
        }
        for step in range(1, steps + 1)
    )
    return TrainingSummary(name, stage, log, {"samples_seen": 5760, "global_batch": 64, "lr": 1e-3}, "beef" * 8)


def draw_pictures(folder: Path, count: int = 12) -> list[str]:
    """Small coloured scenes; returns their paths relative to the folder."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    noise = random.Random(5)
    names = []
    for number in range(count):
        image = Image.new("RGB", (96, 96), tuple(noise.randint(120, 230) for _ in range(3)))
        pen = ImageDraw.Draw(image)
        for _ in range(3):
            x, y = noise.randint(0, 64), noise.randint(0, 64)
            pen.ellipse((x, y, x + 30, y + 30), fill=tuple(noise.randint(0, 255) for _ in range(3)))
        pen.rectangle((8, 64, 88, 90), fill="white")
        pen.text((20, 70), "STOP", fill="black")
        image.save(folder / "images" / f"{number}.png")
        names.append(f"images/{number}.png")
    return names


def dataset(names: list[str]) -> DatasetSummary:
    """A processed pool with accounting, histograms, galleries and known noise."""
    steps = (
        Accounting("fix_unicode_mapper", 2400, 2400, changed=183, cpu_s=0.4),
        Accounting("text_length_filter", 2400, 2251, {"too long": 109, "too short": 40}, 0, 0, 0, 0.1),
        Accounting("image_deduplicator", 2251, 2102, {"duplicate of another row": 147}, 2, 0, 0, 1.8),
        Accounting("image_text_similarity_filter", 2102, 1797, {"similarity below 0.21": 301}, 4, 0, 0, 31.5),
        Accounting("image_captioning_mapper", 1797, 1797, changed=412, cpu_s=48.0),
        Accounting("cap_sampler", 1797, 2000, rows_made=203, cpu_s=0.1),
    )
    bins = [round(-0.1 + 0.05 * i, 2) for i in range(11)]
    galleries = {
        "image_text_similarity_filter: similarity below 0.21": tuple(
            Picture(name, f"<script>alert('{i}')</script> a photo of something else", note="similarity 0.08")
            for i, name in enumerate(names)
        ),
        "recaptioned": tuple(
            Picture(
                name,
                "a red cup left of a blue ball. the sign says STOP.",
                "nice pic 图片 best price & more",
                "NLL 4.1 → 1.2",
            )
            for name in names[:6]
        ),
        "quarantined: truncated or damaged image": (Picture("images/missing.png", "a caption", note="not an image"),),
    }
    return DatasetSummary(
        "balanced", 2000, steps,
        {
            "image_text_similarity": {"edges": bins, "before": [20, 130, 260, 300, 180, 240, 420, 480, 270, 100],
                                      "after": [0, 0, 10, 40, 90, 230, 460, 610, 410, 150]},
            "text_len": {"edges": [0, 40, 80, 120, 160, 200],
                         "before": [200, 900, 800, 300, 200], "after": [20, 980, 900, 100, 0]},
            "caption_nll": {"edges": [0, 1, 2, 3, 4, 5, 6],
                            "before": [300, 700, 600, 400, 250, 150], "after": [700, 900, 300, 80, 20, 0]},
        },
        galleries,
        (FilterQuality("clean", 1300, 31, 0, 1269), FilterQuality("mismatched", 300, 261, 22, 17),
         FilterQuality("mojibake", 120, 2, 117, 1), FilterQuality("wrong text", 200, 61, 88, 51),
         FilterQuality("spam", 180, 171, 5, 4)),
        "c0ffee00" * 4, "input/pretrain_stage_1_demo",
    )  # fmt: skip


def sample(folder: Path) -> ReportInput:
    """A whole report; pictures are drawn into ``folder``."""
    results = {
        name: (
            score("textvqa", "textvqa-noocr", value),
            score("mmbench", "mmbench-circular", 12.0 + value / 2, chance=6.5),
            score("mmbench", "mmbench-exact-letter", 6.1 + value / 60, chance=6.5),
        )
        for name, value in CONDITIONS.items()
    }
    comparisons = tuple(
        comparison("textvqa-noocr", name, 18.4, value, "better" if value > 25 else "tie")
        for name, value in CONDITIONS.items()
        if name != "raw"
    )
    comparisons += (
        comparison("mmbench-circular", "balanced", 21.2, 23.0, "tie"),
        comparison("mmbench-exact-letter", "balanced", 6.4, 6.8, "at chance"),
    )
    stages = ("generate", "process raw", "process balanced", "train raw", "train balanced", "evaluate", "report")
    return ReportInput(
        title="Noisy captions, three strategies",
        command="bettersynth compare --seeds 5 --out demo_out/compare",
        is_demo=True,
        datasets=(dataset(draw_pictures(folder)),),
        trainings=tuple(
            training(name, stage, 1.2 if name == "raw" else 0.7) for name in ("raw", "balanced") for stage in (1, 2)
        ),
        results=results,
        comparisons=comparisons,
        costs=tuple(
            StageCost(name, 3.7 * n + 1, 6.1 * n + 1.2, 0.0, (300 + 40 * n) << 20) for n, name in enumerate(stages, 1)
        ),
        environment={"machine": "2 cores, 24 GiB", "python": "3.11.7", "torch": "2.13.0"},
        digests={"world": "ab" * 16, "processed data": "cd" * 16, "checkpoint": "ef" * 16},
        notes=("The seed pool was sampled from 2,400 to 2,000 rows (seed 1024), as the kit does.",),
        roles={"raw": "baseline", "clean_ceiling": "reference"},
    )


if __name__ == "__main__":
    from bettersynth.media.thumbnail import thumbnail
    from bettersynth.report.build import build_report

    target = Path(sys.argv[1])
    build_report(sample(target), target, root=target, thumbnail=thumbnail)
