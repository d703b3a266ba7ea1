"""Evaluation: ask a model the questions of a benchmark, keep its answers with their provenance, score them apart."""
