"""Our checkpoints inside other evaluation programs; each module is loaded by its program only."""
