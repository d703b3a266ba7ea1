"""Experiments: strategies x seeds under one budget, compared with intervals and allowed to end in a tie."""
