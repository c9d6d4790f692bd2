"""Training of the tiny video model: ``python -m research.tiny_video.training``."""
