"""Where the tiny video model's weights lie, in Wan's own names, and how it is sampled. Imports no model."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
TRANSFORMER = WEIGHTS / "psa_tiny_video.safetensors"
AUTOENCODER = WEIGHTS / "psa_tiny_video_vae.safetensors"

# How far noise levels move towards noise, in training and in pipelines.
FLOW_SHIFT = 3.0
