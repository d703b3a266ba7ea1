"""Conditions on a row's fields, written as one Python expression of names, comparisons, ``and``, ``or`` and ``not``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

Row = Mapping[str, Any]
_Value = Callable[[Row], Any]

_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_SIGN: dict[type, Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_}
_MAKE: dict[type, Callable[[Any], Any]] = {ast.List: list, ast.Tuple: tuple, ast.Set: set}


@lru_cache(maxsize=64)
def compile_condition(text: str) -> tuple[_Value, frozenset[str]]:
    """The condition as a function of a row, and the names of the fields that it looks at.

    What a field does not have is None: it is in nothing, equal to nothing, and every comparison with it is false but
    ``not in``.

    Raises:
        ValueError: no expression, or one with something else in it than names, dots, constants, lists, comparisons,
            ``and``, ``or``, ``not`` and signs.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"not a condition: {text}") from error
    names: set[str] = set()
    return _build(tree.body, names), frozenset(names)


def _build(node: ast.AST, names: set[str]) -> _Value:
    if isinstance(node, ast.Constant):
        constant = node.value
        return lambda row: constant
    if isinstance(node, ast.Name):
        name = node.id
        names.add(name)
        return lambda row: row.get(name)
    if isinstance(node, ast.Attribute):
        return _part(_build(node.value, names), node.attr)
    if isinstance(node, ast.BoolOp):
        parts = [_build(value, names) for value in node.values]
        if isinstance(node.op, ast.And):
            return lambda row: all(part(row) for part in parts)
        return lambda row: any(part(row) for part in parts)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _SIGN:
        change, inner = _SIGN[type(node.op)], _build(node.operand, names)
        return lambda row: change(inner(row))
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        make, entries = _MAKE[type(node)], [_build(entry, names) for entry in node.elts]
        return lambda row: make(entry(row) for entry in entries)
    if isinstance(node, ast.Compare):
        return _comparison(node, names)
    raise ValueError(f"not understood in a condition: {ast.unparse(node)}")


def _part(whole: _Value, name: str) -> _Value:
    def part(row: Row) -> Any:
        value = whole(row)
        return value.get(name) if isinstance(value, dict) else None

    return part


def _comparison(node: ast.Compare, names: set[str]) -> _Value:
    """A chain such as ``1 < a <= 3``: every neighbouring pair must hold."""
    sides = [_build(side, names) for side in (node.left, *node.comparators)]
    kinds = [type(op) for op in node.ops]
    for op in node.ops:
        if type(op) not in _COMPARE:
            raise ValueError(f"not understood in a condition: {ast.unparse(node)}")

    def holds(row: Row) -> bool:
        values = [side(row) for side in sides]
        for kind, left, right in zip(kinds, values, values[1:], strict=False):
            if left is None or right is None:
                return kind is ast.NotIn  # the first unknown side decides, whatever follows
            if not _COMPARE[kind](left, right):
                return False
        return True

    return holds
