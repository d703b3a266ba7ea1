"""Operators: one per file, found by file name."""
