"""The documents a user writes: parsed with line numbers, unknown keys refused, all mistakes shown at once."""
