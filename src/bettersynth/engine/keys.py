"""Names of results: what a cached result depends on, and nothing else."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path

import xxhash

from bettersynth.core.errors import ConfigError
from bettersynth.core.fingerprint import digest_json
from bettersynth.core.lang import t
from bettersynth.ops.base import Operator

_WHOLE_BYTES = 64 << 20
_SAMPLE_BYTES = 1 << 20
_HELPER = re.compile(r"^\s*from (bettersynth\.(?:ops|media)\.[\w.]+) import", re.MULTILINE)
_FRAME = frozenset(f"bettersynth.ops.{name}" for name in ("base", "_arrow", "_context", "_catalog"))


# A folder with one of these is a model: in Hugging Face's form, or parameters of Punkt.
_TELLING = ("config.json", "abbrev_types.txt")


@lru_cache(maxsize=64)
def model_digest(folder: str) -> str:
    """Digest of a model folder's files (names and contents, model cards aside).

    ``fake``, ``builtin`` and the empty name (a library's own model, e.g. OpenCV's face cascade) need no folder.
    Files above 64 MB are sampled: size and 1 MiB at the start, the middle and the end.

    Raises:
        ConfigError: the folder is missing or holds no config.json.
    """
    if folder in ("fake", "builtin", ""):
        return folder
    root = Path(folder)
    if root.is_file():  # a model of one file, e.g. a face cascade
        return digest_json([root.stat().st_size, _sample(root)])
    if not any((root / name).is_file() for name in _TELLING):
        raise ConfigError(
            t("no model in this folder"),
            got=folder,
            expected=t("a folder with {name}", name="config.json"),
            hint=t(
                "models are local folders: download it first (bash download.sh in a kit), or name yours in the recipe"
            ),
        )
    found = []
    for path in sorted(root.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".md":
            found.append([path.name, path.stat().st_size, _sample(path)])
    return digest_json(found)


def _sample(path: Path) -> str:
    size = path.stat().st_size
    state = xxhash.xxh3_128()
    with path.open("rb") as handle:
        if size <= _WHOLE_BYTES:
            while chunk := handle.read(_SAMPLE_BYTES):
                state.update(chunk)
        else:
            for offset in (0, size // 2, size - _SAMPLE_BYTES):
                handle.seek(offset)
                state.update(handle.read(_SAMPLE_BYTES))
    return state.hexdigest()


@lru_cache(maxsize=256)
def _code_digest(module: str) -> str:
    """Digest of the source of the operator's module and of the helpers and other operators that it imports, so that
    edited code never meets old results. The frame that all operators share is left out."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in _FRAME:
            continue
        found[name] = _source(name)
        waiting += _HELPER.findall(found[name])
    return digest_json(sorted(found.items())) if found.get(module) else ""


def _source(module: str) -> str:
    loaded = sys.modules.get(module)
    try:
        spec = None if loaded is not None else importlib.util.find_spec(module)
        file = getattr(loaded, "__file__", None) or (spec.origin if spec is not None else None)
        return Path(file).read_text(encoding="utf-8") if file else ""
    except (OSError, ImportError, ValueError):
        return ""


def _with_contents(name: str, value: object) -> object:
    """A parameter as it is; where it names a file, or a folder of word lists, with what is in it.

    Folders that an operator writes to never count.
    """
    if isinstance(value, list | tuple):
        return [_with_contents(name, item) for item in value]
    if not isinstance(value, str) or not value:
        return value
    try:
        path = Path(value).expanduser()
        if path.is_file():
            return [value, path.stat().st_size, _sample(path)]
        if name.endswith("words_dir"):
            return [value, [[file.name, _sample(file)] for file in sorted(path.glob("*.json"))]]
    except (OSError, RuntimeError, ValueError):  # a text that is no path, or a file that may not be read
        pass
    return value


def phase_key(
    kind: str, operator: Operator, digests: Mapping[str, str], seed: int, *, without: Collection[str] = ()
) -> str:
    """Digest of operator, version, parameters, model weights, code and seed.

    A parameter that names a file, such as the user's own code of ``python_file_mapper``, stands for its contents, too.

    Args:
        digests: model folder to digest; folders themselves are no part of the key.
        without: fields that this phase does not read.
    """
    params = {}
    for field in dataclasses.fields(operator):
        value = getattr(operator, field.name)
        if field.name not in without:
            is_model = field.name in operator.models and value is not None
            params[field.name] = digests[value] if is_model else _with_contents(field.name, value)
    code = _code_digest(type(operator).__module__)
    if operator.code_digest:
        code = digest_json([code, operator.code_digest])
    return digest_json([kind, operator.name, type(operator).version, params, code, seed])
