"""Kinds of values on the command line; their function names are what ``cli.main`` makes sentences of."""

from __future__ import annotations


def positive(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        ValueError: it is not; argparse says so with the flag's name.
    """
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def unsigned(text: str) -> int:
    """A whole number of at least 0; raises like :func:`positive`."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number
