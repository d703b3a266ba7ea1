"""Images: open, resize, hash. The only place that decodes pixels."""
