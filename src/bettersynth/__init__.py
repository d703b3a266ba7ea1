"""bettersynth: turn noisy image-text pairs into better ones, and prove that they are better."""

__version__ = "0.1.0"
