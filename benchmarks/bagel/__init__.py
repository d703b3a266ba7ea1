"""BAGEL against the original's way of working: ``python -m benchmarks.bagel [train|draw|decode|load|gpu]``."""
