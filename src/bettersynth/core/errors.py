"""The errors a user may meet: what happened, where, what was got and expected, and what to do next.

Every message follows one form, printed by :meth:`BetterSynthError.render`::

    error: unknown operator 'text_lenght_filter'
      where: recipe.yaml:14 process[2]
      got: text_lenght_filter
      expected: one of the 31 registered operators
    hint: did you mean 'text_length_filter'?

Exit codes: 0 done, 1 failed, 2 the request is wrong, 130 interrupted and resumable.
"""

from __future__ import annotations

from collections.abc import Sequence

from bettersynth.core.lang import t


class BetterSynthError(Exception):
    """Base of every error that is shown to a user without a traceback.

    Args:
        message: what happened, one sentence without a final period.
        where: file, line, record or parameter, e.g. ``recipe.yaml:14 process[2].min_ratio``.
        got: the offending value.
        expected: what would have been accepted.
        hint: the next command to run, or the nearest valid name.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        got: object | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.got = None if got is None else str(got)
        self.expected = expected
        self.hint = hint

    def render(self) -> str:
        """The message as shown on a terminal, one fact a line, with its labels in the language in force."""
        return t("error: {message}", message=self.body())

    def body(self) -> str:
        """The message and its facts, without the word "error"."""
        facts = (("  where: {value}", self.where), ("  got: {value}", self.got), ("  expected: {value}", self.expected))
        lines = [self.message, *(t(label, value=value) for label, value in facts if value is not None)]
        if self.hint:
            lines.append(t("hint: {value}", value=self.hint))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.body()


class ConfigError(BetterSynthError):
    """The request is wrong: a bad flag, key, value or combination (exit code 2)."""

    exit_code = 2


class ConfigErrors(ConfigError):
    """Several mistakes of one document, shown together so that they are mended together."""

    def __init__(self, problems: Sequence[BetterSynthError], *, where: str | None = None) -> None:
        count = len(problems)
        super().__init__(t("1 problem found") if count == 1 else t("{n} problems found", n=count), where=where)
        self.problems = tuple(problems)

    def body(self) -> str:
        """All problems, numbered, each in the usual form."""
        lines = [t("{problems} in {where}", problems=self.message, where=self.where) if self.where else self.message]
        for number, problem in enumerate(self.problems, 1):
            first, *rest = problem.body().splitlines()
            lines.append(f"  {number}. {first}")
            lines.extend(f"     {line}" for line in rest)
        return "\n".join(lines)


class DataError(BetterSynthError):
    """Input data is missing, damaged or of the wrong form."""


class MissingExtraError(BetterSynthError):
    """A feature needs an optional dependency that is not installed (exit code 2).

    Args:
        feature: what was asked for, e.g. ``training``.
        extra: the extra of this package that brings the dependency, e.g. ``train``.
    """

    exit_code = 2

    def __init__(self, feature: str, extra: str, *, missing: str | None = None) -> None:
        without = t(" (module '{name}' is not installed)", name=missing) if missing else ""
        super().__init__(
            t("{feature} needs the '{extra}' extra", feature=feature, extra=extra) + without,
            hint=f"pip install 'bettersynth[{extra}]'",
        )
        self.extra = extra


class ProvenanceError(BetterSynthError):
    """A score or prediction does not say where it comes from, so it may not be printed or packed."""


class RuleError(BetterSynthError):
    """A challenge rule refuses this (exit code 2); ``reasons`` lists every broken rule."""

    exit_code = 2

    def __init__(self, message: str, reasons: Sequence[str] = (), **facts: str | None) -> None:
        super().__init__(message, **facts)
        self.reasons = tuple(reasons)

    def body(self) -> str:
        """The message followed by one line per broken rule."""
        head, *rest = super().body().splitlines()
        return "\n".join([head, *(f"  - {reason}" for reason in self.reasons), *rest])


class PeerLost(BetterSynthError):
    """Another process of the same training has ended; its own message says why (exit code 75: try again)."""

    exit_code = 75


class RunInterrupted(BetterSynthError):
    """The run was interrupted; running the same command again continues it (exit code 130)."""

    exit_code = 130
