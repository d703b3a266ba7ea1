"""Mappers: rewrite rows."""
