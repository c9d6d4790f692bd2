"""Settings for language models, which read a prompt in one step, token by token behind one another."""

from __future__ import annotations

from typing import Any

from ...settings.config import PSAConfig, check_config
from ...settings.errors import ConfigError
from ...settings.orders import RASTER
from ...settings.presets import load_preset
from ...settings.schedule import Schedule

# By the model type of the language model; all others are the last.
_FAMILIES = {"qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL"}
ANY_FAMILY = "Language"


def family_of(config: Any) -> str:
    """The presets' name for a model, from its settings or those of its language model."""
    kind = str(getattr(config, "model_type", "")).removesuffix("_text").removesuffix("_moe")
    return _FAMILIES.get(kind, ANY_FAMILY)


def default_settings(config: Any) -> PSAConfig:
    """The default preset of a model."""
    return for_prompts(load_preset(family_of(config)))


def for_prompts(config: PSAConfig) -> PSAConfig:
    """Settings without what a prompt has nothing of: steps of a denoising, and orders of a video's tokens, which would
    put some in front of their past. Of a schedule its dense layers stay.

    Raises:
        ConfigError: settings that mean nothing without these.
    """
    check_config(config)
    if config.radial is not None:
        raise ConfigError("radial", "a mask", "is for videos that are made: a language model has no grid of tokens")
    curve = config.schedule.curve if config.schedule else "constant"
    if "timestep" in (config.mask_mode, curve):
        raise ConfigError("mask_mode", "timestep", "needs the steps of a denoising, which a language model has not")
    dense_layers = config.schedule.dense_layers if config.schedule else ()
    schedule = Schedule(dense_layers=dense_layers) if dense_layers else None
    steps = {"warmup_steps": 0, "map_steps": 1, "early_density": 1.0, "schedule": schedule}
    orders = {"use_rearrange": False, "candidate_orders": (RASTER,), "text_length": 0}
    return config.replace(**steps, **orders)
