"""What operators there are on the other side of the pipe: Data-Juicer's own, and those of the user's files.

Beside ``_server.py`` and like it run by a Python that has Data-Juicer, never imported by ours.

Source: what is called is the public surface of py-data-juicer 1.6.1; files are loaded as its ``custom_operator_paths``
are (a file under its own name, a folder as a package from the folder above).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
import typing
from typing import Any


def registry() -> dict[str, Any]:
    """All operator classes by name, Data-Juicer's own and those of the files that were loaded."""
    forbid_installs()
    importlib.import_module("data_juicer.ops")
    found: dict[str, Any] = importlib.import_module("data_juicer.ops.base_op").OPERATORS.modules
    return found


def forbid_installs() -> None:
    """Data-Juicer installs packages it misses at the first use; here a missing package is an error that names it."""
    loader = importlib.import_module("data_juicer.utils.lazy_loader").LazyLoader

    def refuse(cls: Any, package: Any, *args: Any, **kwargs: Any) -> None:
        raise ImportError(f"package {package} is not installed")

    loader._install_package = classmethod(refuse)


# --- facts ----------------------------------------------------------------------------------------------------------

_KINDS = ("Filter", "Mapper", "Deduplicator", "Selector", "Grouper", "Aggregator", "Pipeline")
_PLAIN = {int: "int", float: "float", bool: "bool", str: "str", list: "list", dict: "dict", type(None): "null"}


def facts(classes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Kind and parameters of operators, of all unless told: name, JSON types that fit, and short defaults."""
    base = importlib.import_module("data_juicer.ops.base_op")
    found = {}
    for name, cls in sorted((registry() if classes is None else classes).items()):
        is_class = inspect.isclass(cls)
        kinds = [kind for kind in _KINDS if is_class and issubclass(cls, getattr(base, kind))]
        params: dict[str, Any] = {}
        for klass in inspect.getmro(cls) if kinds else ():
            if klass.__module__ == base.__name__:
                break
            if "__init__" not in vars(klass):
                continue
            for key, value in _signature(vars(klass)["__init__"]).items():
                if key != "self" and value.kind not in (value.VAR_POSITIONAL, value.VAR_KEYWORD):
                    params.setdefault(key, {"types": sorted(types_of(value)), **default_of(value)})
        found[name] = {"kind": kinds[0].lower() if kinds else "other", "params": params}
    return found


def _signature(method: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(method, eval_str=True).parameters)
    except Exception:  # noqa: BLE001 - annotations of the user's may name what is imported for type checkers alone
        return dict(inspect.signature(method).parameters)


def types_of(value: inspect.Parameter) -> set[str]:
    """JSON types that a parameter takes; empty when it does not say."""
    hint = value.annotation
    names = set() if hint is value.empty or isinstance(hint, str) else _types(hint)
    if value.default is None and names:
        names.add("null")
    return names


def _types(hint: Any) -> set[str]:
    if hint in _PLAIN:
        return {_PLAIN[hint]}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _types(inner[0])
    if origin is typing.Literal:
        return {_PLAIN.get(type(item), "") for item in inner} - {""}
    if origin in (list, tuple, set, dict):
        return {"dict" if origin is dict else "list"}
    parts = [_types(part) for part in inner] if "Union" in str(origin) or "Union" in type(hint).__name__ else []
    return set().union(*parts) if parts and all(parts) else set()


def default_of(value: inspect.Parameter) -> dict[str, Any]:
    """The default where it is a short plain value."""
    default = value.default
    if default is value.empty:
        return {"needed": True}
    short = (
        default is None or isinstance(default, bool | int | float) or (isinstance(default, str) and len(default) < 60)
    )
    return {"default": default} if short and default not in (float("inf"), sys.maxsize) else {}


# --- files of the user ----------------------------------------------------------------------------------------------

_loaded: dict[str, dict[str, Any]] = {}


def load(path: str) -> dict[str, Any]:
    """Load a file or package once.

    Returns:
        ``operators``, the facts of what it registers, and ``closed``, those of them that take no keys but their own;
        or ``error`` and its ``place``.
    """
    if path not in _loaded:
        before = dict(registry())
        _loaded[path] = {}  # known before it is run, so that places in it are told
        sys.dont_write_bytecode, usual = True, sys.dont_write_bytecode  # nothing is left beside the user's files
        try:
            _import(path)
            made = {name: cls for name, cls in registry().items() if before.get(name) is not cls}
            _loaded[path] = {"operators": facts(made), "closed": [name for name in made if _is_closed(made[name])]}
        except BaseException as error:  # noqa: BLE001 - the user's file may fail in any way, also through SystemExit
            text = f"{type(error).__name__}: {error}".split("\n", 1)[0][:500]
            _loaded[path] = {"error": text, "place": place_of(error) or path}
        finally:
            sys.dont_write_bytecode = usual
    return _loaded[path]


def _is_closed(cls: Any) -> bool:
    kinds = [value.kind for value in inspect.signature(cls.__init__).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD not in kinds


def _import(path: str) -> None:
    folder, name = os.path.split(path)
    name = name if os.path.isdir(path) else os.path.splitext(name)[0]
    if name in sys.modules:
        there = getattr(sys.modules[name], "__file__", None)
        raise ImportError(f"a module of the name {name} is loaded already: {there}")
    if os.path.isdir(path):
        sys.path.insert(0, folder)
        try:
            importlib.import_module(name)
        finally:
            sys.path.remove(folder)
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def place_of(error: BaseException) -> str:
    """``FILE, line N`` of the innermost line of the user's files that an error went through, or empty."""
    found = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        found.append((error.filename or "", error.lineno))
    for file, line in reversed(found):
        if any(file == path or file.startswith(path + os.sep) for path in _loaded):
            return f"{file}, line {line}"
    return ""
