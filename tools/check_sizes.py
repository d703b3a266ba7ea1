"""Size guard: keeps files, functions and parameter lists small enough to read at once.

Refuses files over 600 lines, functions over 100 lines, more than 8 parameters, and logic in ``__init__.py``.
Run by ``make check``; prints every violation and exits 1 when there is one.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 100
MAX_PARAMETERS = 8
ROOT = Path(__file__).resolve().parent.parent


def _functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _function_problems(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    problems = []
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if length > MAX_FUNCTION_LINES:
        problems.append(f"{path}:{node.lineno} {node.name}: {length} lines (at most {MAX_FUNCTION_LINES})")
    arguments = node.args
    count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    count -= bool(arguments.args and arguments.args[0].arg in ("self", "cls"))
    if count > MAX_PARAMETERS:
        problems.append(f"{path}:{node.lineno} {node.name}: {count} parameters (at most {MAX_PARAMETERS})")
    return problems


def _has_logic(tree: ast.Module) -> bool:
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    return any(not isinstance(node, allowed) and not isinstance(node, ast.Expr) for node in tree.body)


def problems_of(path: Path) -> list[str]:
    """All violations in one file."""
    source = path.read_text(encoding="utf-8")
    shown = path.relative_to(ROOT)
    found = []
    lines = source.count("\n") + 1
    if lines > MAX_FILE_LINES:
        found.append(f"{shown}: {lines} lines (at most {MAX_FILE_LINES})")
    tree = ast.parse(source)
    for node in _functions(tree):
        found.extend(_function_problems(shown, node))
    if path.name == "__init__.py" and path.parent.name != "bettersynth" and _has_logic(tree):
        found.append(f"{shown}: logic in __init__.py")
    return found


def main() -> int:
    """Check every Python file of the package, the tests, the tools and the benchmarks."""
    files = [path for top in ("src", "tests", "tools", "benchmarks") for path in sorted((ROOT / top).rglob("*.py"))]
    found = [problem for path in files for problem in problems_of(path)]
    print("\n".join(found) if found else f"{len(files)} files within size limits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
