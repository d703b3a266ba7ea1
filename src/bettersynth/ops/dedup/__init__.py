"""Deduplicators: keep the first of equal or nearly equal rows."""
