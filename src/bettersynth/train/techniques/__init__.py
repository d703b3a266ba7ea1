"""Training techniques beyond the challenge's recipe, one file each; all are off unless a preset names them."""
