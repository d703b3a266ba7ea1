"""Training of the tiny base models that ship with the demo."""
