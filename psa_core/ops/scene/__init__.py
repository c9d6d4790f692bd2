"""The scene mask."""
