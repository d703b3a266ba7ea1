"""Filters: score each row, then keep or drop it."""
