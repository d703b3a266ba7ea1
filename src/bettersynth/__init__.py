"""Better image-text data, measured."""
