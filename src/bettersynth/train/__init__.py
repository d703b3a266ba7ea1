"""The trainer: one loop for every model family and stage, resumable at any step."""
