"""Training of the tiny video model: ``python -m psa_core.tiny_video.training``."""
