"""The radial mask."""
