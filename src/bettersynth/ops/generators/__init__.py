"""Generators: make new rows from existing ones."""
