"""A tiny BAGEL of the demo world: its autoencoder, the folder it starts from, and its records."""
