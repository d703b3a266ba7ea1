"""Scores of generated texts and pictures: against references, against each other, and against what was asked for."""
