"""Selectors: choose and repeat rows with a view of the whole data set."""
