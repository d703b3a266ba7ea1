"""Parts that more than one model family uses."""
