"""Pyramid Sparse Attention for video diffusion models, on plain tensors, diffusers pipelines and ComfyUI models."""

from .attention import AttentionInfo, PSAAttention, attention_from_levels, pyramid_sparse_attention
from .backends import BackendError
from .config import PSAConfig
from .errors import ConfigError
from .levels import compose
from .masks.radial import radial_levels
from .masks.scene import scene_levels
from .masks.settings import RadialMask
from .presets import load_preset, load_presets, save_preset
from .schedule import Schedule

__version__ = "0.1.0"

__all__ = [
    "AttentionInfo",
    "BackendError",
    "ConfigError",
    "PSAAttention",
    "PSAConfig",
    "RadialMask",
    "Schedule",
    "attention_from_levels",
    "compose",
    "load_preset",
    "load_presets",
    "pyramid_sparse_attention",
    "radial_levels",
    "save_preset",
    "scene_levels",
]
