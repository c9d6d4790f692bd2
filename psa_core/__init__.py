"""Pyramid Sparse Attention for video diffusion models, on plain tensors, diffusers pipelines and ComfyUI models."""

from .attention.calibrate import calibrate
from .attention.call import PSAAttention, attention_from_levels, pyramid_sparse_attention
from .attention.steps import AttentionInfo
from .masks.radial import radial_levels
from .masks.scene import scene_levels
from .ops.backends import BackendError
from .ops.levels.rules import compose
from .settings.calibration import Calibration
from .settings.config import PSAConfig
from .settings.errors import ConfigError
from .settings.presets import load_preset, load_presets
from .settings.radial import RadialMask
from .settings.recipe import Recipe
from .settings.schedule import Schedule
from .settings.user_presets import save_preset

__version__ = "0.1.0"

__all__ = [
    "AttentionInfo",
    "BackendError",
    "Calibration",
    "ConfigError",
    "PSAAttention",
    "PSAConfig",
    "RadialMask",
    "Recipe",
    "Schedule",
    "attention_from_levels",
    "calibrate",
    "compose",
    "load_preset",
    "load_presets",
    "pyramid_sparse_attention",
    "radial_levels",
    "save_preset",
    "scene_levels",
]
