"""Mini-Gemini: Gemma with a low- and a high-resolution vision tower and patch-info mining."""
