"""Do something when another library is imported, without importing it oneself.

``import bettersynth`` costs nothing and touches no heavy library; yet transformers should know our checkpoints after
it. So a finder notes which modules of transformers are waited for, and calls a function of ours once they are loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing it takes longer than all else here
    from importlib.abc import Loader


class _After:
    """A module's own loader, followed by a call of ours."""

    def __init__(self, loader: Loader, target: str) -> None:
        self._loader, self._target = loader, target

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does it."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Load the module, then call what waits for it."""
        self._loader.exec_module(module)
        call(self._target)


class LateFinder:
    """Finds nothing itself; wraps the loaders of the modules that are waited for.

    Args:
        waiting: module name to ``package.module:function``, called without arguments when that module is there.
    """

    def __init__(self, waiting: Mapping[str, str]) -> None:
        self.waiting = dict(waiting)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec with a wrapped loader, once; None for every other name."""
        if name not in self.waiting:
            return None
        function = self.waiting.pop(name)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _After(spec.loader, function)  # type: ignore[assignment]
        return spec


def call(target: str) -> None:
    """Call ``package.module:function``."""
    module, _, function = target.partition(":")
    getattr(importlib.import_module(module), function)()


def when_imported(waiting: Mapping[str, str]) -> None:
    """Call each function when its module is imported; at once where it already is."""
    later = {}
    for name, target in waiting.items():
        if name in sys.modules:
            call(target)
        else:
            later[name] = target
    if later:
        sys.meta_path.insert(0, LateFinder(later))
