"""The embedded executor: plans, shards, workers, commits, accounting, traces."""
