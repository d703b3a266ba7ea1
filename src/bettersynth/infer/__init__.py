"""Protocols of models that answer, caption, embed or draw, and their backends."""
