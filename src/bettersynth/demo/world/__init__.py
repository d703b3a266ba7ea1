"""The procedural demo world: scenes, pictures, language, noise and evaluation files."""
