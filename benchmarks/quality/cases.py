"""What is measured: the settings of the bundled presets, each once however many presets share them."""

from __future__ import annotations

from dataclasses import dataclass

from psa_core.settings.config import PSAConfig
from psa_core.settings.dial import DIAL_PRESETS
from psa_core.settings.presets import bundled_dir, load_families

_DEFAULTS = PSAConfig()
# What changes nothing in the tiny model, or is the sampler's business.
_COMMON = {
    "warmup_steps": 0,
    "min_tokens": 0,
    "text_length": 0,
    "attn_impl": _DEFAULTS.attn_impl,
    "precision": _DEFAULTS.precision,
    "verbose": False,
    "description": "",
}


@dataclass(frozen=True)
class QualityCase:
    """Settings that differ from those of every other case in the tiny model.

    Attributes:
        presets: the bundled presets they stand for, as ``model/preset``; the first one names the case.
        config: what runs sparse; which steps do is the sampler's business.
    """

    presets: tuple[str, ...]
    config: PSAConfig

    @property
    def name(self) -> str:
        return self.presets[0]


def quality_cases() -> list[QualityCase]:
    """All bundled presets that are not dense, radial masks among them, without repetitions.

    Models that have the dial alone have it as the others do.
    """
    found: dict[PSAConfig, list[str]] = {}
    families = load_families(bundled_dir()).values()
    for family in (family for family in families if family.default not in DIAL_PRESETS and not family.host):
        for name, config in family.presets.items():
            if config.type != "dense":
                found.setdefault(in_tiny_model(config), []).append(f"{family.name}/{name}")
    return [QualityCase(tuple(names), config) for config, names in found.items()]


def in_tiny_model(config: PSAConfig) -> PSAConfig:
    """A preset's settings for the tiny model, with the defaults wherever a setting changes nothing there.

    The model has no text in front of the video and is short of every ``min_tokens``. Dense steps are left to the
    sampler, and of a mask's dense layers, meant for 30 to 48 of them, the first of 12 remains.
    """
    if config.radial is not None:
        return _masked(config)
    return config.replace(
        tile_n=_DEFAULTS.tile_n,
        rearrange_method=config.rearrange_method if config.use_rearrange else _DEFAULTS.rearrange_method,
        tile_size=config.tile_size if config.rearrange_method == "Tile" else _DEFAULTS.tile_size,
        sim_thresholds=config.sim_thresholds if config.use_sim_mask else _DEFAULTS.sim_thresholds,
        mask_ratios={level: bounds for level, bounds in config.mask_ratios.items() if bounds[0] < bounds[1]},
        **_COMMON,
    )


def _masked(config: PSAConfig) -> PSAConfig:
    radial = config.radial
    assert radial is not None
    model_type = radial.model_type
    if model_type == "auto":
        model_type = "cogvideox" if config.text_length else "wan"
    radial = radial.replace(
        model_type=model_type, dense_layers=min(radial.dense_layers, 1), dense_timesteps=0, last_dense_timesteps=0
    )
    if radial.decides_alone:
        return PSAConfig(block_m=config.block_m, block_n=config.block_n, min_tokens=0, radial=radial)
    return in_tiny_model(config.replace(radial=None)).replace(radial=radial)
