"""The demo: a small world, its tiny base models and the tour over them."""
