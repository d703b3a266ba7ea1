"""Benchmarks: our engine and Data-Juicer in turn on the same recipes, with their rows compared."""
