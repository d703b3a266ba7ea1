"""Score generated texts and pictures: BLEU to BERTScore, FID, KID, CMMD, CLIP score, and exact compositional checks.

What to score is the first word: texts (against references), pictures (two folders), pairs (picture and prompt),
prompts (draw those of the compositional check), composition (check pictures of these prompts), reader (how well the
rule-based reader reads damaged pictures).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bettersynth.cli.kinds import positive
from bettersynth.cli.render import Progress, print_facts, print_json, print_rows, share_text
from bettersynth.core.errors import ConfigError, MissingExtraError
from bettersynth.core.lang import t

KINDS = ("texts", "pictures", "pairs", "prompts", "composition", "reader")
EXAMPLES = (
    "bettersynth metrics texts --predictions said.jsonl --references wanted.jsonl --metrics bleu rouge",
    "bettersynth metrics pictures --generated pictures --reference real --extractor inception=inception.pth",
    "bettersynth metrics pairs --generated pictures --prompts prompts.jsonl --clip models/clip",
    "bettersynth metrics prompts --per-category 50 --out prompts.jsonl",
    "bettersynth metrics composition --generated pictures --prompts prompts.jsonl",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``metrics``."""
    add = parser.add_argument
    add("kind", choices=KINDS, help=t("what to score, or what to draw"))
    add("--predictions", type=Path, metavar="FILE", help=t("texts: lines, or JSON lines with id and text"))
    add("--references", type=Path, metavar="FILE", help=t("texts: the same with a text or a list of references"))
    names = ("bleu", "rouge", "meteor", "bertscore")
    add("--metrics", nargs="+", choices=names, default=["bleu", "rouge"], metavar="NAME", help=", ".join(names))
    add("--wordnet", type=Path, metavar="DIR", help=t("METEOR's WordNet 3 database"))
    add("--bert", type=Path, metavar="DIR", help=t("BERTScore's encoder"))
    add("--bert-layers", type=positive, metavar="N", help=t("its layer (default: the last)"))
    add("--generated", type=Path, metavar="DIR", help=t("folder of generated pictures"))
    add("--reference", type=Path, metavar="DIR", help=t("folder of real pictures"))
    add("--extractor", metavar="NAME=PATH", help=t("inception=FILE, inception-clean=FILE or clip=FOLDER"))
    add("--kid-subsets", type=positive, metavar="N", default=100, help=t("KID's random subsets (default: 100)"))
    add(
        "--kid-subset-size",
        type=positive,
        metavar="N",
        default=1000,
        help=t("pictures in each of them (default: 1000)"),
    )
    add("--pairs", type=Path, metavar="JSONL", help=t("lines with image and text, instead of --generated"))
    add("--prompts", type=Path, metavar="JSONL", help=t("the prompts that were generated from"))
    add("--clip", metavar="DIR", help=t("CLIP folder for the CLIP score"))
    add("--describe-with", metavar="DIR", help=t("captioner or BAGEL folder for caption-back agreement"))
    add(
        "--per-category",
        type=positive,
        metavar="N",
        default=50,
        help=t("prompts of each category (default: 50, 250 in all)"),
    )
    add("--vocabulary", choices=("eval", "base"), default="eval", help=t("eval: combinations held out from training"))
    add("-o", "--out", type=Path, metavar="FILE", help=t("where to write prompts, or every verdict"))
    add("--count", type=positive, default=100, help=t("reader: pictures of each kind of damage (default: 100)"))
    add("--seed", type=int, default=0, help=t("seed (default: 0)"))
    add("--device", default="auto", help=t("auto, cpu, cuda or cuda:N"))
    add("--json", action="store_true", help=t("print JSON"))


def _need(args: argparse.Namespace, *flags: str) -> None:
    missing = [flag for flag in flags if getattr(args, flag.lstrip("-").replace("-", "_")) is None]
    if missing:
        raise ConfigError(
            t("needed: {flags}", flags=", ".join(missing)),
            hint=t("see: {command} --help", command="bettersynth metrics"),
        )


_USED = {
    "texts": ("predictions", "references", "metrics", "wordnet", "bert", "bert-layers", "device"),
    "pictures": ("generated", "reference", "extractor", "kid-subsets", "kid-subset-size", "seed", "device"),
    "pairs": ("pairs", "generated", "prompts", "clip", "describe-with", "out", "device"),
    "prompts": ("per-category", "vocabulary", "out", "seed"),
    "composition": ("pairs", "generated", "prompts", "out"),
    "reader": ("count", "seed"),
}


def _refuse_unused(args: argparse.Namespace) -> None:
    """A flag that does nothing here would be taken for one that did."""
    used = {"json", "lang", *_USED[args.kind]}
    typed = [word.partition("=")[0].removeprefix("--") for word in args.words if word.startswith("--")]
    typed += ["out"] if args.out is not None and "out" not in typed else []  # -o
    unused = [f"--{name}" for name in typed if name not in used]
    if unused:
        raise ConfigError(
            t("not used by metrics {kind}: {flags}", kind=args.kind, flags=", ".join(unused)),
            expected=", ".join(f"--{name}" for name in _USED[args.kind]),
        )


def run(args: argparse.Namespace) -> int:
    """Score or draw what was asked for."""
    _refuse_unused(args)
    return _RUN[args.kind](args)


def _texts(args: argparse.Namespace) -> int:
    from bettersynth.eval.generation.files import matched
    from bettersynth.eval.generation.texts import score_texts

    _need(args, "--predictions", "--references")
    said, wanted = matched(args.predictions, args.references)
    device = _device(args) if "bertscore" in args.metrics else "cpu"
    scores = score_texts(
        said,
        wanted,
        metrics=args.metrics,
        wordnet=args.wordnet,
        bert=args.bert,
        bert_layers=args.bert_layers,
        device=device,
    )
    if args.json:
        print_json(scores)
        return 0
    rows = [(s.name, f"{s.value:.4f}", f"0-{s.scale:g}", len(said), s.settings) for s in scores]
    print_rows((t("metric"), t("value"), t("scale"), t("texts"), t("settings")), rows, "<>>><")
    return 0


def _device(args: argparse.Namespace) -> str:
    try:
        from bettersynth.infer._torch import choose_device

        return str(choose_device(args.device)[0])
    except ModuleNotFoundError as error:
        raise MissingExtraError(t("text metrics"), "metrics", missing=error.name) from error


def _pictures(args: argparse.Namespace) -> int:
    from bettersynth.eval.generation.distances import Moments, cmmd, fid, kid
    from bettersynth.eval.generation.features import folder_features, load_extractor, picture_files
    from bettersynth.eval.generation.files import files_digest

    _need(args, "--generated", "--reference", "--extractor")
    paths = {"generated": picture_files(args.generated), "reference": picture_files(args.reference)}
    extractor = load_extractor(args.extractor, device=args.device)
    show = Progress()
    features = {
        name: folder_features(extractor, files, progress=lambda done, total, n=name: show(f"{n}: {done}/{total}"))
        for name, files in paths.items()
    }
    one, two = features["generated"], features["reference"]
    size = min(args.kid_subset_size, len(one), len(two))
    found = kid(one, two, subsets=args.kid_subsets, subset_size=size, seed=args.seed)
    facts: dict[str, Any] = {
        "fid": fid(Moments.of(one), Moments.of(two)),
        "kid": found.mean,
        "kid_std": found.std,
        "kid_subsets": f"{found.subsets} x {found.subset_size}",
        "cmmd": cmmd(*(_unit(side) for side in (one, two))) if args.extractor.startswith("clip") else None,
        "extractor": f"{extractor.name} {extractor.digest}",
        **{name: f"{len(files)} pictures, digest {files_digest(files)}" for name, files in paths.items()},
    }
    if args.extractor.startswith("inception"):
        del facts["cmmd"]  # it is defined on CLIP embeddings
    notes = _small_sets(len(one), len(two), one.shape[1])
    print_json(facts) if args.json else print_facts({**facts, **({"note": notes} if notes else {})})
    return 0


def _unit(features: Any) -> Any:
    import numpy as np

    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _small_sets(one: int, other: int, features: int) -> str:
    if min(one, other) > features:
        return ""
    return t("FID of fewer pictures than features ({n}) is biased upwards; KID and CMMD are not", n=features)


def _pairs_of(args: argparse.Namespace) -> list[Any]:
    from bettersynth.eval.generation.files import generated_pairs, read_pairs, unanswered

    if args.pairs is not None:
        return read_pairs(args.pairs)
    _need(args, "--generated", "--prompts")
    pairs = generated_pairs(args.generated, args.prompts)
    missing = unanswered(args.prompts, pairs)
    if missing:
        note = "{n} prompts of {path} have no picture here and do not count: {names}"
        print(t(note, n=len(missing), path=args.prompts, names=", ".join(missing[:5])), file=sys.stderr)
    return pairs


def _pairs(args: argparse.Namespace) -> int:
    from bettersynth.eval.generation.consistency import caption_back, clip_score
    from bettersynth.eval.generation.features import open_all
    from bettersynth.infer.loader import load_scorer

    pairs = _pairs_of(args)
    if args.clip is None and args.describe_with is None:
        _need(args, "--clip")
    images, texts = list(open_all([pair.image for pair in pairs])), [pair.text for pair in pairs]
    scorer = load_scorer(args.clip, device=args.device) if args.clip else None
    rows: list[dict[str, Any]] = [{"id": pair.id, "text": pair.text} for pair in pairs]
    if scorer is not None:
        for row, value in zip(rows, clip_score(images, texts, scorer), strict=True):
            row["clip_score"] = float(value)
    if args.describe_with:
        captions, found = caption_back(images, texts, _describer(args), scorer)
        for row, caption, agreement in zip(rows, captions, found, strict=True):
            row |= {"caption": caption, "precision": agreement.precision, "recall": agreement.recall}
            row |= {"f1": agreement.f1, "similarity": agreement.similarity}
    return _summary(args, rows)


def _describer(args: argparse.Namespace) -> Callable[[Any], list[str]]:
    folder = Path(args.describe_with)
    if not (folder / "llm_config.json").is_file():
        from bettersynth.infer.loader import load_captioner

        return load_captioner(args.describe_with, device=args.device).caption
    from bettersynth.infer.unified import InterleaveInferencer, load_model

    inferencer = InterleaveInferencer(load_model(folder, device=args.device))

    def describe(images: Any) -> list[str]:
        prompts = [[image, "Describe the image concisely."] for image in images]
        found: list[str] = []
        for start in range(0, len(prompts), 8):
            batch = inferencer.generate_batch(prompts[start : start + 8], output="text", max_new_tokens=64)
            found += [result.text for result in batch]
        return found

    return describe


def _summary(args: argparse.Namespace, rows: list[dict[str, Any]]) -> int:
    names = [key for key, value in rows[0].items() if isinstance(value, float)]
    means = {name: sum(row[name] for row in rows) / len(rows) for name in names}
    if args.out is not None:
        _write_lines(args.out, rows)
    if args.json:
        print_json({"pairs": len(rows), **means, "rows": rows})
    else:
        print_facts({"pairs": len(rows), **{name: f"{value:.4f}" for name, value in means.items()}})
    return 0


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    from bettersynth.core.artifact import write_atomic

    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _prompts(args: argparse.Namespace) -> int:
    from bettersynth.demo.world.composition import draw_prompts

    _need(args, "--out")
    prompts = draw_prompts(args.per_category, seed=args.seed, vocabulary=args.vocabulary)
    rows = [{"id": p.id, "prompt": p.text, "output": "image", "seed": n} for n, p in enumerate(prompts)]
    _write_lines(args.out, rows)
    facts = {"prompts": len(rows), "path": str(args.out)}
    print_json(facts) if args.json else print(t("{n} prompts in {path}", n=len(rows), path=args.out))
    return 0


def _composition(args: argparse.Namespace) -> int:
    from bettersynth.demo.world.composition import check, overall, prompt_of, summary
    from bettersynth.eval.generation.features import open_all

    pairs = _pairs_of(args)
    prompts = [prompt_of(pair.id, pair.text) for pair in pairs]
    pictures = open_all([pair.image for pair in pairs])
    verdicts = [check(prompt, picture) for prompt, picture in zip(prompts, pictures, strict=True)]
    table = summary(verdicts)
    if args.out is not None:
        _write_lines(args.out, [_verdict(verdict) for verdict in verdicts])
    shares = {
        name: {part: {"right": s.right, "of": s.of, "interval": s.interval} for part, s in row.items() if s.of}
        for name, row in table.items()
    }
    if args.json:
        print_json({"overall": overall(table), "categories": shares})
        return 0
    parts = list(next(iter(table.values())))
    rows = [[name, *(share_text(row[part]) for part in parts)] for name, row in table.items()]
    print_rows([t("category"), *parts], rows, "<" + ">" * len(parts))
    print()
    print(t("mean over categories: {value} % of {n} pictures", value=f"{100 * overall(table):.1f}", n=len(verdicts)))
    return 0


def _verdict(verdict: Any) -> dict[str, Any]:
    seen = [f"{thing.colour} {thing.kind} {thing.cell}" for thing in verdict.reading.things]
    prompt = {"id": verdict.prompt.id, "category": verdict.prompt.category, "prompt": verdict.prompt.text}
    right = {"right": verdict.is_right, "exact": verdict.is_exact, "parts": dict(verdict.parts)}
    return {**prompt, **right, "seen": seen, "words": verdict.reading.words}


def _reader(args: argparse.Namespace) -> int:
    from bettersynth.demo.world.reader_check import PARTS, accuracy

    show = Progress()
    table = accuracy(args.count, seed=args.seed, progress=lambda done, total: show(f"{done}/{total}"))
    if args.json:
        print_json(table)
        return 0
    rows = [[name, *(f"{100 * row[part]:.1f}" for part in PARTS)] for name, row in table.items()]
    print_rows([t("damage"), *PARTS], rows, "<" + ">" * len(PARTS))
    print()
    print(t("% of {n} pictures each, seed {seed}", n=args.count, seed=args.seed))
    return 0


_RUN: dict[str, Callable[[argparse.Namespace], int]] = {
    "texts": _texts,
    "pictures": _pictures,
    "pairs": _pairs,
    "prompts": _prompts,
    "composition": _composition,
    "reader": _reader,
}
