"""Named parts found by file name: adding one thing is adding one file, and listing them imports nothing."""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettersynth.core.errors import ConfigError
from bettersynth.core.lang import t

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The nearest known name as a hint, or None."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return t("did you mean '{name}'?", name=close[0]) if close else None


@dataclass(frozen=True)
class Registry:
    """The modules of one or more packages (sub-folders included), plus entry points of other distributions.

    Args:
        kind: what is registered, used in messages: ``operator``, ``task``, ``metric``.
        package: dotted package whose folder is searched; the file name is the registered name.
        group: entry-point group through which other distributions add names.
    """

    kind: str
    package: str
    group: str

    @cached_property
    def _modules(self) -> dict[str, str]:
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(self.package)
        root = Path(next(iter(spec.submodule_search_locations)))
        found: dict[str, str] = {}
        for path in sorted(root.rglob("*.py")):
            if path.stem.startswith("_") or path.stem == "base":
                continue
            dotted = ".".join([self.package, *path.relative_to(root).with_suffix("").parts])
            found[path.stem] = dotted
        return found

    @cached_property
    def _plugins(self) -> dict[str, EntryPoint]:
        from importlib import metadata  # takes long to import, and most names are ours

        return {point.name: point for point in metadata.entry_points(group=self.group)}

    def names(self) -> list[str]:
        """All registered names, sorted, without importing any of them."""
        return sorted({*self._modules, *self._plugins})

    def __contains__(self, name: str) -> bool:
        return name in self._modules or name in self._plugins

    def check(self, name: str, *, where: str | None = None) -> None:
        """Raise ConfigError with the nearest name when ``name`` is not registered."""
        if name not in self:
            raise ConfigError(
                t("unknown {kind} '{name}'", kind=self.kind, name=name),
                where=where,
                expected=t("one of {n} registered names", n=len(self.names())),
                hint=did_you_mean(name, self.names())
                or t("list them with: bettersynth explain {kind}s", kind=self.kind),
            )

    def module(self, name: str) -> Any:
        """Import and return the module of that name."""
        self.check(name)
        if name in self._modules:
            return importlib.import_module(self._modules[name])
        return self._plugins[name].load()

    def summary(self, name: str) -> str:
        """First line of the module's docstring, read without importing it."""
        if name not in self._modules:
            return ""
        spec = find_spec(self._modules[name])
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        return (ast.get_docstring(ast.parse(source)) or "").split("\n", 1)[0]
