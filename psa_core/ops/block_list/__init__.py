"""Block list: the form of a level map that kernels read."""
