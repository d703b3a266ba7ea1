"""The challenge folder: make one, or take over one that exists."""
