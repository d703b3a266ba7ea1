"""What an operator is: plain data (a frozen dataclass whose fields are its recipe keys) and a few pure methods.

A batch is an Arrow record batch in the Data-Juicer view. Its columns:

===================== ==============================================================================================
``id``                text; the record's own id, or its row key when it has none. Never changed by an operator.
``text``              text with special tokens
``images``            list of picture paths as the record writes them
``stats.NAME``        numbers (or lists of numbers, one per picture) that filters computed
``__file__`` ``__row__`` ``__child__``  the hidden row key: source file number, line (from 1), child number
``__record__``        JSON of the record as it was read, for the fields no operator touches
===================== ==============================================================================================

The row key gives output order, tie-breaks, quarantine ids and seeds, so no result depends on batching or on the
number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t
from bettersynth.core.sample import RowKey
from bettersynth.ops._arrow import is_null

if TYPE_CHECKING:
    from bettersynth.ops._context import OpContext

Batch: TypeAlias = pa.RecordBatch
Stats = dict[str, Any]
"""Stat name to Arrow array, one entry a row."""
Mask = npt.NDArray[np.bool_]
Track = Literal["challenge", "open"]

ID, TEXT, IMAGES, RECORD = "id", "text", "images", "__record__"
KEY = ("__file__", "__row__", "__child__")
STATS = "stats."


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """Base of all operators. Class facts are upper-level attributes, not recipe keys.

    Attributes:
        reads: columns needed. writes: columns changed or added. Both are checked by a contract test.
        version: raise it when results change, so that cached results are not reused.
        pixels: whether pictures are decoded (decides how many rows are worked on at once).
        models: parameters that name a model folder; a step with models ends its stage, so that its result is kept.
        track: ``open`` when the operator may add ids, questions, turns or entities.
        code_digest: of code that it runs outside of its own module; part of the key of its results.
    """

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    pixels: ClassVar[bool] = False
    models: ClassVar[tuple[str, ...]] = ()
    track: ClassVar[Track] = "challenge"
    code_digest: ClassVar[str] = ""

    @property
    def name(self) -> str:
        """The registered name: the file name of the class."""
        return type(self).__module__.rpartition(".")[2]

    def check(self) -> None:
        """Raise ValueError when parameters do not fit each other; called once when the recipe is checked."""

    def adds(self) -> tuple[str, ...]:
        """Columns this instance writes; more than ``writes`` when a parameter asks for more."""
        return self.writes

    def needs(self) -> tuple[str, ...]:
        """Columns this instance reads; the plan checks that an earlier step writes its ``stats.*`` among them."""
        return self.reads


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapper(Operator):
    """Rewrites rows; must return as many rows as it got, in order, unless it is a Generator."""

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """The batch with the columns in ``writes`` changed."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class TextMapper(Mapper):
    """A mapper that changes each text by itself."""

    reads: ClassVar[tuple[str, ...]] = (TEXT,)
    writes: ClassVar[tuple[str, ...]] = (TEXT,)

    def apply(self, batch: Batch, ctx: OpContext) -> Batch:
        """Each text rewritten by :meth:`rewrite`; special tokens are text here, as in Data-Juicer."""
        rewrite = self.rewrite
        texts = batch.column(TEXT).to_pylist()
        return with_column(batch, TEXT, pa.array([rewrite(text) for text in texts], pa.string()))

    def rewrite(self, text: str) -> str:
        """The new text."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Made:
    """Rows of a generator: ``source[i]`` is the row of the input batch from which output row ``i`` comes.

    The first output row of a source keeps the source's key; further ones become its children, and ``is_child`` can
    say so explicitly when the source itself is not kept.
    """

    batch: Batch
    source: npt.NDArray[np.int64]
    is_child: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Generator(Operator):
    """Makes new rows from existing ones; the source rows may stay or go."""

    def make(self, batch: Batch, ctx: OpContext) -> Made:
        """Output rows, ordered by source; the engine gives children their keys and counts them."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter(Operator):
    """Scores rows, then keeps or drops them. ``keep`` is pure, so cached scores survive a change of threshold.

    Attributes:
        keep_params: fields that only :meth:`keep` reads; they are no part of the score's cache key.
        at_once: whether it scores whole batches fast. Neighbours of this kind that read the same columns score the same
            rows, also those that the first of them drops, so that each text or header is looked at once.
    """

    keep_params: ClassVar[tuple[str, ...]] = ()
    at_once: ClassVar[bool] = False

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """Stat columns (without the ``stats.`` prefix), one entry a row."""
        raise NotImplementedError

    def keep(self, stats: Stats) -> Mask:
        """True for rows that stay."""
        raise NotImplementedError

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """Why each of the ``dropped`` rows goes; reasons are counted, so they name a rule and not a value."""
        return [self.name] * len(dropped)


@dataclass(frozen=True, kw_only=True, slots=True)
class Adaptive:
    """A threshold that follows the data's own distribution.

    Args:
        method: ``quantile`` uses ``low`` and ``high`` as shares of rows to drop at the lower and upper end; ``otsu``
            splits the values in two groups with the least variance inside them (Otsu, 1979) and drops one side.
        low: for ``quantile``, the share below the range, e.g. 0.2.
        high: for ``quantile``, the share above the range.
        drop: for ``otsu``, which of the two groups goes.
        max_drop: for ``otsu``, never drop more than this share; the threshold moves towards the end then.
    """

    method: Literal["quantile", "otsu"]
    low: float | None = None
    high: float | None = None
    drop: Literal["low", "high"] = "low"
    max_drop: float = 1.0

    def fit(self, values: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
        """Lower and upper bound for these values (both inclusive); None where no bound applies."""
        if len(values) == 0:
            return None, None
        if self.method == "quantile":
            low = None if self.low is None else float(np.quantile(values, self.low))
            return low, None if self.high is None else float(np.quantile(values, 1 - self.high))
        split = otsu(values)
        if self.drop == "low":
            return min(split, float(np.quantile(values, self.max_drop))), None
        return None, max(split, float(np.quantile(values, 1 - self.max_drop)))


def otsu(values: npt.NDArray[np.float64]) -> float:
    """The value that splits a sample in two groups with the largest variance between them (Otsu, 1979), exactly.

    The midpoint between the two neighbouring values is returned; a constant sample gives its value.
    """
    ordered = np.sort(values)
    n = len(ordered)
    if n < 2 or ordered[0] == ordered[-1]:
        return float(ordered[0])
    left = np.arange(1, n)
    sums = np.cumsum(ordered)
    means_low, means_high = sums[:-1] / left, (sums[-1] - sums[:-1]) / (n - left)
    between = left * (n - left) * (means_low - means_high) ** 2
    between[ordered[1:] == ordered[:-1]] = -1.0  # never split equal values
    cut = int(np.argmax(between))
    return float((ordered[cut] + ordered[cut + 1]) / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class RangeFilter(Filter):
    """A filter that keeps ``low <= value <= high`` of one number a row.

    ``min_closed_interval`` and ``max_closed_interval`` make an end strict; ``reversed_range`` keeps what lies outside
    (Data-Juicer's keys and meaning). A bound of None is not tested. ``adaptive_threshold`` replaces the bounds by ones
    fitted to all rows of the data set. ``mark_only`` keeps the rows that fail and writes 1 in ``stats.NAME_failed``
    instead, so that a later step can repair them.
    """

    stat: ClassVar[str] = ""
    bounds: ClassVar[tuple[str, str]] = ("min_ratio", "max_ratio")
    keep_params: ClassVar[tuple[str, ...]] = (
        *("min_closed_interval", "max_closed_interval", "reversed_range", "adaptive_threshold", "mark_only"),
    )

    adaptive_threshold: Adaptive | None = None
    mark_only: bool = False
    min_closed_interval: bool = True
    max_closed_interval: bool = True
    reversed_range: bool = False

    def adds(self) -> tuple[str, ...]:
        """The scores, and the mark when rows are only marked."""
        return (*self.writes, f"{STATS}{self.stat}_failed") if self.mark_only else self.writes

    def limits(self) -> tuple[float | None, float | None]:
        """The two bounds."""
        return getattr(self, self.bounds[0]), getattr(self, self.bounds[1])

    def with_limits(self, low: float | None, high: float | None) -> RangeFilter:
        """The same filter with fitted bounds."""
        changes: dict[str, Any] = {self.bounds[0]: low, self.bounds[1]: high}
        return replace(self, adaptive_threshold=None, **changes)

    def check(self) -> None:
        """The lower bound may not lie above the upper one."""
        low, high = self.limits()
        if low is not None and high is not None and low > high:
            raise ValueError(f"{self.bounds[0]} {low} is above {self.bounds[1]} {high}")

    def keep(self, stats: Stats) -> Mask:
        """Inside the range, or outside when reversed. Rows without a value (null) stay."""
        column = stats[self.stat]
        values = np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
        kept: Mask = self.inside(values) | is_null(column)
        return kept

    def inside(self, values: npt.NDArray[np.float64]) -> Mask:
        """Which values the range accepts."""
        below, above = self._outside(values)
        return (below | above) if self.reversed_range else ~(below | above)

    def _outside(self, values: npt.NDArray[np.float64]) -> tuple[Mask, Mask]:
        low, high = self.limits()
        # Reversing flips both ends first, so that "outside" includes the bounds by default.
        strict_low = self.min_closed_interval if self.reversed_range else not self.min_closed_interval
        strict_high = self.max_closed_interval if self.reversed_range else not self.max_closed_interval
        below = np.zeros(len(values), bool) if low is None else (values <= low if strict_low else values < low)
        above = np.zeros(len(values), bool) if high is None else (values >= high if strict_high else values > high)
        return below, above

    def reasons(self, stats: Stats, dropped: npt.NDArray[np.int64]) -> list[str]:
        """``stat below min_x`` or ``stat above max_x``."""
        if self.reversed_range:
            return [f"{self.stat} inside {self.bounds[0]}..{self.bounds[1]}"] * len(dropped)
        values = np.asarray(stats[self.stat].to_numpy(zero_copy_only=False), dtype=np.float64)[dropped]
        below, _ = self._outside(values)
        low, high = self.bounds
        return [f"{self.stat} below {low}" if under else f"{self.stat} above {high}" for under in below]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFilter(RangeFilter):
    """A range filter whose value is computed from each text by itself."""

    reads: ClassVar[tuple[str, ...]] = (TEXT,)

    def score(self, batch: Batch, ctx: OpContext) -> Stats:
        """One number per text, by :meth:`value`."""
        value = self.value
        return {self.stat: pa.array([value(text) for text in batch.column(TEXT).to_pylist()])}

    def value(self, text: str) -> float:
        """The number that is compared."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a global operator decided, one entry per row of the partials, in their order.

    Args:
        copies: 0 drops the row, 1 keeps it, n repeats it.
        reasons: why dropped rows go; empty text for the others.
        columns: stat columns to add to the rows (names without prefix), e.g. a cluster number.
        facts: what was found, e.g. a fitted threshold; shown in the plan's result and the report.
        fields: plain columns to add to the rows and to write into the result, e.g. a row number.
    """

    copies: npt.NDArray[np.int64]
    reasons: Sequence[str]
    columns: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalOperator(Operator):
    """Sees the whole data set through small per-row keys: ``partial`` per batch, ``reduce`` once, then applied.

    Both methods are pure. Rows arrive in key order; ties are broken by that order.

    Attributes:
        keep_params: fields that only :meth:`reduce` reads; they are no part of the partials' cache key.
    """

    keep_params: ClassVar[tuple[str, ...]] = ()

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """Small columns, one entry a row, that :meth:`reduce` needs of every row."""
        raise NotImplementedError

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Decide over all rows at once; ``partials`` has the columns of :meth:`partial` and the row's ``id``."""
        raise NotImplementedError

    def finish(self, batch: Batch, ctx: OpContext) -> Batch:
        """Rewrite the rows that stay, by what the verdict gave them as ``fields``; most operators rewrite nothing.

        A field that served only for that is taken out again here, as fields are written into the result.
        """
        return batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Deduplicator(GlobalOperator):
    """Keeps the first row of each group of duplicates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selector(GlobalOperator):
    """Chooses, and perhaps repeats, rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedFilter(GlobalOperator):
    """A range filter that decides over all rows at once: bounds fitted to them, or rows only marked.

    Made by the plan from a filter with ``adaptive_threshold`` or ``mark_only``.
    """

    reads: ClassVar[tuple[str, ...]] = ()  # whatever the filter reads, see needs()

    inner: RangeFilter

    @property
    def name(self) -> str:
        """The filter's own name."""
        return self.inner.name

    def adds(self) -> tuple[str, ...]:
        """The filter's columns."""
        return self.inner.adds()

    def needs(self) -> tuple[str, ...]:
        """The filter's columns."""
        return tuple(dict.fromkeys([*self.inner.reads, *self.inner.needs()]))

    def partial(self, batch: Batch, ctx: OpContext) -> Stats:
        """The filter's scores."""
        return self.inner.score(batch, ctx)

    def reduce(self, partials: pa.Table, ctx: OpContext) -> Verdict:
        """Fit the bounds if asked, then keep, or mark, what lies outside."""
        stats = {name: partials.column(name).combine_chunks() for name in partials.column_names if name != ID}
        fitted = self.inner
        facts: dict[str, Any] = {}
        if self.inner.adaptive_threshold is not None:
            column = stats[self.inner.stat]
            values = column.flatten() if pa.types.is_list(column.type) else column
            known = np.asarray(values.drop_null().to_numpy(zero_copy_only=False), np.float64)
            low, high = self.inner.adaptive_threshold.fit(known)
            fitted = self.inner.with_limits(low, high)
            facts = {"fitted " + name: value for name, value in zip(self.inner.bounds, (low, high), strict=True)}
        kept = fitted.keep(stats)
        if self.inner.mark_only:
            stats[f"{self.inner.stat}_failed"] = pa.array((~kept).astype(np.int64))
            facts["marked"] = int((~kept).sum())
            kept = np.ones(len(kept), bool)
        reasons = [""] * len(kept)
        dropped = np.flatnonzero(~kept)
        for row, reason in zip(dropped.tolist(), fitted.reasons(stats, dropped), strict=True):
            reasons[row] = reason
        return Verdict(kept.astype(np.int64), reasons, stats, facts)


def stat_values(column: Any) -> npt.NDArray[np.float64]:
    """One number a row of a stat column: lists (one value per picture) are averaged, missing values become NaN."""
    if pa.types.is_list(column.type):
        rows = column.to_pylist()
        return np.array([np.mean(row) if row else np.nan for row in rows], np.float64)
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def percentile_ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of rows that a row is better than, 0 to 1; equal values share their mean rank, NaN gets 0.5."""
    from scipy.stats import rankdata

    known = ~np.isnan(values)
    ranks = np.full(len(values), 0.5)
    if known.sum() > 1:
        ranks[known] = (rankdata(values[known]) - 1) / (known.sum() - 1)
    return ranks


def with_column(batch: Batch, name: str, values: Any) -> Batch:
    """The batch with a column replaced or appended."""
    index = batch.schema.get_field_index(name)
    if index < 0:
        return batch.append_column(name, values)
    return batch.set_column(index, name, values)


def row_keys(batch: Batch) -> list[RowKey]:
    """The hidden keys of a batch."""
    columns = [batch.column(name).to_pylist() for name in KEY]
    return [RowKey(*parts) for parts in zip(*columns, strict=True)]


def keep_first(groups: npt.NDArray[Any], reason: str, *, never: Mask | None = None) -> Verdict:
    """Keep the first row of each group. Rows where ``never`` is True are always kept."""
    _, first = np.unique(groups, return_index=True)
    copies = np.zeros(len(groups), np.int64)
    copies[first] = 1
    if never is not None:
        copies[never] = 1
    return Verdict(copies, [reason if not count else "" for count in copies])


def find_class(module: Any) -> type[Operator]:
    """The one operator class a module defines.

    Raises:
        ConfigError: the module defines none or several, or it lacks a declared fact.
    """
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Operator) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ConfigError(
            t("an operator file must define exactly one operator"),
            where=module.__name__,
            got=", ".join(cls.__name__ for cls in found) or "0",
        )
    return found[0]
