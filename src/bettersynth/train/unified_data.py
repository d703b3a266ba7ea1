"""Training sets of unified generation: validated, tokenised, balanced records of one file or of a weighted mixture."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bettersynth.config.load import load_yaml
from bettersynth.config.train import StageConfig
from bettersynth.core.errors import BetterSynthError, ConfigError, ConfigErrors, DataError
from bettersynth.core.lang import t
from bettersynth.core.registry import did_you_mean
from bettersynth.core.sample import Conversation, ImageRef
from bettersynth.formats.unified import BadRecord, Problem
from bettersynth.formats.unified_files import read_records, record_files
from bettersynth.formats.webdataset import left_out_note
from bettersynth.media.header import read_header
from bettersynth.models.bagel.processor import UnifiedProcessor
from bettersynth.models.bagel.records import UnifiedExample
from bettersynth.models.family import Rejected
from bettersynth.train.data import choose_rows
from bettersynth.train.examples import ExampleStore, RejectedRow, TrainingSet
from bettersynth.train.mixture import mixture_order
from bettersynth.train.sampler import OrderSpec, sample_order

_SOURCE_KEYS = ("data", "weight", "image_root", "max_samples")


@dataclass(frozen=True, slots=True)
class Source:
    """One data file of a mixture, or a folder of shards.

    Attributes:
        weight: share of the samples shown; None shows every sample equally often.
        max_samples: rows beyond this many are sampled away.
    """

    data: Path
    image_root: Path
    weight: float | None = None
    max_samples: int | None = None


def read_sources(data: Path, image_root: Path) -> list[Source]:
    """The data files that ``data`` stands for: itself, or those that a YAML mixture lists.

    A mixture is ``datasets:``, a list of ``{data, weight, image_root, max_samples}``; paths start from its folder.

    Raises:
        ConfigErrors: every mistake of the mixture file.
    """
    if data.suffix not in (".yaml", ".yml"):
        return [Source(data, image_root)]
    document = load_yaml(data)
    items = document.data.get("datasets")
    if set(document.data) != {"datasets"} or not isinstance(items, list) or not items:
        raise ConfigError(
            t("a mixture is a list of data files under 'datasets'"), where=str(data), got=", ".join(document.data)
        )
    problems: list[BetterSynthError] = []
    found = []
    for number, item in enumerate(items):
        where = f"{data} datasets[{number}]"
        problem = _source_problem(item, where)
        if problem is not None:
            problems.append(problem)
            continue
        path = data.parent / item["data"]
        beside = path if path.is_dir() else path.parent
        root = data.parent / item["image_root"] if item.get("image_root") else beside
        try:
            record_files(path)
        except DataError as error:
            told = {"expected": error.expected, "hint": error.hint}
            problems.append(DataError(error.message, where=where, got=error.got or path, **told))
        weight = None if item.get("weight") is None else float(item["weight"])
        found.append(Source(path, root, weight, item.get("max_samples")))
    if not problems and len({source.weight is None for source in found}) > 1:
        problems.append(ConfigError(t("give a weight to every data file of a mixture, or to none"), where=str(data)))
    if problems:
        raise ConfigErrors(problems, where=str(data))
    return found


def _source_problem(item: Any, where: str) -> ConfigError | None:
    if not isinstance(item, Mapping) or not isinstance(item.get("data"), str):
        return ConfigError(t("a data file of a mixture needs 'data', its path"), where=where, got=item)
    for key in item:
        if key not in _SOURCE_KEYS:
            expected = t("one of: {names}", names=", ".join(_SOURCE_KEYS))
            hint = did_you_mean(str(key), _SOURCE_KEYS)
            return ConfigError(t("unknown key '{name}'", name=key), where=where, expected=expected, hint=hint)
    weight, most = item.get("weight"), item.get("max_samples")
    if weight is not None and (not isinstance(weight, int | float) or isinstance(weight, bool) or weight <= 0):
        return ConfigError(t("a weight is a number above 0"), where=where, got=weight)
    if most is not None and (not isinstance(most, int) or most < 1):
        return ConfigError(t("max_samples is a whole number above 0"), where=where, got=most)
    return None


def check_file(path: Path, *, image_root: Path | None = None) -> list[BadRecord]:
    """All records of a file, or of a folder of shards, that cannot be used; missing and damaged pictures included.

    Args:
        image_root: folder that picture paths start from; the data's own by default.
    """
    root = image_root if image_root is not None else path if path.is_dir() else path.parent
    seen: dict[str, str | None] = {}
    found: list[BadRecord] = []
    for row, (label, item) in enumerate(read_records(path)):
        if isinstance(item, BadRecord):
            found.append(BadRecord(row, f"{label}{item.id}", item.problems))
            continue
        problems = []
        for image in item.images:
            if image.path not in seen:
                try:
                    read_header(root / image.path)
                    seen[image.path] = None
                except DataError as error:
                    seen[image.path] = error.message
            if seen[image.path]:
                problems.append(picture_problem(image.path, str(seen[image.path]), root))
        if problems:
            found.append(BadRecord(row, f"{label}{item.id}", tuple(problems)))
    return found


def picture_problem(path: str, message: str, root: Path) -> Problem:
    """A picture that is missing or damaged, with where it was looked for."""
    return Problem(f"image_path {path}", message, t("pictures are looked for from {folder}", folder=root))


class UnifiedStore(ExampleStore):
    """Examples of unified generation, and what the two losses are divided by."""

    part_names = ("text", "image")

    def __init__(self, *, is_reweighted: bool = False) -> None:
        super().__init__()
        self._is_reweighted = is_reweighted
        self.part_totals = {name: array("d") for name in self.part_names}
        self.groups = array("i")

    def add_unified(self, example: UnifiedExample, row: int, group: int) -> None:
        """Append one example that comes from a row of a data file."""
        self._examples.append(example)  # type: ignore[arg-type]
        self.rows.append(row)
        self.groups.append(group)
        self.num_tokens.append(example.num_tokens)
        self.num_targets.append(example.num_text_targets + example.num_image_targets)
        self.has_image.append(bool(example.images))
        text = example.text_weight if self._is_reweighted else float(example.num_text_targets)
        self.part_totals["text"].append(text)
        self.part_totals["image"].append(float(example.num_image_targets))

    def __getitem__(self, index: int) -> Any:
        return self._examples[index]

    def __iter__(self) -> Iterator[UnifiedExample]:
        yield from self._examples  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Balance:
    """What a data set, in the proportions it is shown in, holds of texts and pictures.

    Attributes:
        samples: shown samples by what they learn (``text``, ``image``, ``mixed``).
        tokens: tokens by kind: ``text``, ``vit`` (pictures to see), ``vae`` (latents), ``markers`` are in ``text``.
        targets: tokens of either loss.
        by_source: shown samples per data file, and how often each of its samples comes on average.
    """

    samples: Mapping[str, int]
    tokens: Mapping[str, int]
    targets: Mapping[str, int]
    by_source: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def share(self, name: str) -> float:
        """Share of the samples that learn ``text`` or ``image``; mixed ones count for both."""
        total = sum(self.samples.values())
        return (self.samples.get(name, 0) + self.samples.get("mixed", 0)) / max(1, total)

    def line(self) -> str:
        """The report in one line."""
        return t(
            "samples: {samples}; tokens: {tokens}; learnt tokens: {targets}",
            samples=_counts(self.samples),
            tokens=_counts(self.tokens),
            targets=_counts(self.targets),
        )

    def warning(self, min_share: float) -> str | None:
        """What is out of balance, or None."""
        for name in ("text", "image"):
            if self.share(name) < min_share:
                return t(
                    "out of balance: only {percent} % of the samples learn {name}; add such samples, or raise the "
                    "weight of their data file in a mixture",
                    percent=f"{100 * self.share(name):.1f}",
                    name=name,
                )
        return None


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in values.items()) or "0"


@dataclass(frozen=True)
class UnifiedSet(TrainingSet):
    """A training set of unified generation; see :class:`TrainingSet`."""

    sources: tuple[Source, ...] = ()
    num_truncated: int = 0
    num_cut_segments: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def order(self, spec: OrderSpec) -> list[int]:
        """Indices in training order: plain epochs, or the mixture's weights."""
        store = self.examples
        weights = [source.weight for source in self.sources]
        if not weights or weights[0] is None:
            return sample_order(spec, store.num_tokens, store.has_image)
        groups: list[list[int]] = [[] for _ in weights]
        for index, group in enumerate(store.groups):  # type: ignore[attr-defined]
            groups[group].append(index)
        return mixture_order(spec, groups, [float(weight or 0) for weight in weights])

    def balance(self, order: Sequence[int] | None = None) -> Balance:
        """Of the samples as they are shown in ``order``; each once by default."""
        shown = Counter(range(len(self.examples)) if order is None else order)
        samples: Counter[str] = Counter()
        tokens, targets = Counter(text=0, vit=0, vae=0), Counter(text=0, image=0)
        groups: Counter[int] = Counter()
        for index, times in shown.items():
            example: UnifiedExample = self.examples[index]  # type: ignore[assignment]
            samples[example.kind] += times
            tokens["vit"] += times * example.num_vit
            tokens["vae"] += times * example.num_vae
            tokens["text"] += times * (example.num_tokens - example.num_vit - example.num_vae)
            targets["text"] += times * example.num_text_targets
            targets["image"] += times * example.num_image_targets
            groups[self.examples.groups[index]] += times  # type: ignore[attr-defined]
        sizes = Counter(self.examples.groups)  # type: ignore[attr-defined]
        by_source = {
            str(self.sources[n].data): (count, round(count / sizes[n], 3)) for n, count in sorted(groups.items())
        }
        return Balance(dict(sorted(samples.items())), dict(tokens), dict(targets), by_source)

    @property
    def facts(self) -> dict[str, Any]:
        """What the result's manifest says beyond the counts of rows."""
        balance = self.balance()
        return {
            "truncated_samples": self.num_truncated,
            "cut_segments": self.num_cut_segments,
            "samples_by_kind": dict(balance.samples),
            "tokens_by_kind": dict(balance.tokens),
            "targets_by_kind": dict(balance.targets),
        }


def prepare_unified(config: StageConfig, processor: UnifiedProcessor) -> UnifiedSet:
    """Read, check and tokenise all records; opens only the headers of pictures.

    Raises:
        DataError: unreadable data, no usable record, or more bad records than the config allows: all are listed.
        ConfigErrors: mistakes in a mixture file.
    """
    settings = config.unified
    sources = read_sources(config.data, config.images)
    store = UnifiedStore(is_reweighted=settings is not None and settings.text_loss_reweighting)
    rejected: list[RejectedRow] = []
    rows, chosen_rows, left_out = 0, 0, Counter[str]()
    for group, source in enumerate(sources):
        records = list(read_records(source.data, left_out))
        limits = (source.max_samples, config.max_samples if len(sources) == 1 else None)
        limit = min((n for n in limits if n is not None), default=None)
        chosen = sorted(choose_rows(len(records), limit, config.sample_seed))
        for row in chosen:
            shard, record = records[row]
            if len(sources) > 1 and isinstance(record, Conversation):
                record = _rooted(record, source.image_root)
            outcome = record if isinstance(record, BadRecord) else processor.encode(record)
            if isinstance(outcome, UnifiedExample):
                store.add_unified(outcome, rows + row, group)
            else:
                label = "" if len(sources) == 1 else f"{source.data.name}:"
                rejected.append(_rejected(outcome, rows + row, f"{label}{shard}"))
        rows += len(records)
        chosen_rows += len(chosen)
    cut = [example.num_cut for example in store if example.num_cut]
    result = UnifiedSet(
        rows, rows - chosen_rows, store, tuple(rejected), (), tuple(sources), len(cut), sum(cut), left_out
    )
    _check_bad(config, chosen_rows, result.rejected)
    if not len(store):
        detail = "; ".join(f"{item.key}: {item.detail}" for item in rejected[:5])
        raise DataError(t("no usable training sample"), where=str(config.data), got=detail or "0 rows")
    return replace(result, notes=tuple(_notes(config, result)))


def _check_bad(config: StageConfig, rows: int, bad: Sequence[RejectedRow], shown: int = 20) -> None:
    """Raise DataError, listing the records with their fields and fixes, when more are bad than tolerated."""
    tolerated = 0.0 if config.on_bad_sample == "stop" else config.max_bad_ratio
    if len(bad) <= tolerated * rows:
        return
    lines = [
        t("record {row} ({key}): {detail}", row=item.row, key=item.key or "-", detail=item.detail)
        for item in bad[:shown]
    ]
    if len(bad) > shown:
        lines.append(t("... {n} more", n=len(bad) - shown))
    raise DataError(
        t("{bad} of {rows} samples cannot be trained on", bad=len(bad), rows=rows),
        where=str(config.data),
        got="\n    ".join(lines),
        expected=t("at most {percent} % bad samples", percent=f"{100 * tolerated:g}"),
        hint=t("mend or remove these records; if the pictures lie elsewhere: --images DIR, or --image_root DIR")
        if all(item.reason == "bad_image" for item in bad)
        else t("mend or remove these records; the forms are in sample_data_format.json"),
    )


def _rooted(record: Conversation, root: Path) -> Conversation:
    """The record with its pictures' full paths: the files of a mixture may have folders of their own."""
    segments = tuple(
        replace(part, image=ImageRef(str(root.absolute() / part.image.path))) if part.image is not None else part
        for part in record.segments
    )
    return replace(record, segments=segments)


def _rejected(outcome: BadRecord | Rejected, row: int, label: str) -> RejectedRow:
    if isinstance(outcome, BadRecord):
        return RejectedRow(row, f"{label}{outcome.id}", "record", "bad_record", outcome.reason)
    stage = "image" if outcome.reason in ("bad_image", "bad_size") else "encode"
    return RejectedRow(row, f"{label}{outcome.key}", stage, outcome.reason, outcome.detail)  # type: ignore[arg-type]


def _notes(config: StageConfig, data: UnifiedSet) -> Iterator[str]:
    if data.sampled_out:
        kept = data.rows - data.sampled_out
        yield t("{rows} rows sampled down to {kept} (seed {seed})", rows=data.rows, kept=kept, seed=config.sample_seed)
    if data.rejected:
        yield t("{n} rows left out: {reasons}", n=len(data.rejected), reasons=_counts(data.reasons))
    if data.left_out:
        yield left_out_note(data.left_out)
    if data.num_truncated:
        yield t(
            "{n} samples cut at the border of a segment to at most {most} tokens ({m} segments)",
            n=data.num_truncated,
            most=config.max_length,
            m=data.num_cut_segments,
        )
    total = config.samples_seen or config.epochs * len(data.examples)
    spec = OrderSpec(total=total, global_batch=1, micro_batch=1, seed=config.seed)
    balance = data.balance(data.order(spec))
    yield balance.line()
    if len(data.sources) > 1:
        shown = ", ".join(f"{Path(name).name} {count} ({times}x)" for name, (count, times) in balance.by_source.items())
        yield t("shown by data file: {shown}", shown=shown)
    settings = config.unified
    warning = balance.warning(settings.min_share if settings is not None else 0.1)
    if warning:
        yield warning
