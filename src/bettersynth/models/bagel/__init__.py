"""The BAGEL family: one decoder that reads text and pictures and writes text and picture latents."""
