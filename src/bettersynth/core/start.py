"""Starting quickly: Python looks for garbage after every few hundred new objects, and importing makes none."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_has_frozen = False


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Inside, nobody looks for garbage; what is there when the outermost first ends is never looked at again."""
    global _has_frozen
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not _has_frozen:  # once a process: garbage that is frozen stays
            gc.freeze()
            _has_frozen = True
        gc.enable()
