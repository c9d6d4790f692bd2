"""Preset Loader: a preset's numbers as widgets. What the widgets show is what runs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..psa_core.settings.config import IMPORTANCE_ESTIMATORS, MASK_MODES, REORDER_METHODS, SIM_LEVELS, PSAConfig
from ..psa_core.settings.errors import ConfigError, errors_at
from ..psa_core.settings.mask_ratios import bounds_from_mask_ratios, mask_ratios_from_bounds
from ..psa_core.settings.presets import ModelFamily, load_families
from ..psa_core.settings.sizes import BLOCK_M, BLOCK_N
from .shared import Preset

DEFAULT_FAMILY = "Wan2.1_1.3b"
LEVELS = (1, 2, 4, 8, 16, 32, 64, 128)
_TILE = ("frames", "height", "width")


def user_presets_dir() -> Path:
    """Where a ComfyUI user keeps preset files."""
    return Path(folder_paths.get_user_directory()) / "psa_presets"


def families() -> tuple[dict[str, ModelFamily], list[ConfigError]]:
    """Bundled and user presets; a user's file that is not valid costs only its own presets."""
    folder = user_presets_dir()
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return _families(folder, tuple((file, file.stat().st_mtime_ns) for file in files))


# ComfyUI asks for a node's schema several times a prompt: files are read, and what is odd in them said, once.
@lru_cache(maxsize=1)
def _families(folder: Path, files: tuple[tuple[Path, int], ...]) -> tuple[dict[str, ModelFamily], list[ConfigError]]:
    errors: list[ConfigError] = []
    return load_families(user=folder, errors=errors), errors


def names_of(family: ModelFamily) -> list[str]:
    """The presets that this node's numbers can say; masks and schedules have nodes of their own."""
    return [name for name, config in family.presets.items() if config.radial is None and config.schedule is None]


def choices() -> dict[str, Any]:
    """What the front end fills this node's widgets with, and what is wrong in the user's files."""
    known, errors = families()
    models = {
        family.name: {
            "default": family.default,
            "presets": {name: widgets_from_config(family.presets[name]) for name in names_of(family)},
        }
        for family in known.values()
    }
    return {"models": models, "errors": [str(error) for error in errors]}


class PSAPresetLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        known, _ = families()
        names = list(dict.fromkeys(name for each in known.values() for name in names_of(each)))
        family = known[DEFAULT_FAMILY]
        default = widgets_from_config(family.presets[family.default])
        return io.Schema(
            node_id="PSAPresetLoader",
            display_name="Preset Loader",
            category="PSA",
            description=(
                "Settings for the PSA Attention Patch. Choosing a preset fills in the numbers; the numbers are what "
                "runs, and they travel with the graph."
            ),
            search_aliases=["psa preset", "mask_ratios", "sparse attention settings"],
            inputs=[
                io.Combo.Input(
                    "model", options=list(known), default=DEFAULT_FAMILY, tooltip="Model whose presets to choose from."
                ),
                io.Combo.Input(
                    "preset",
                    options=names,
                    default=family.default,
                    tooltip="Fills the numbers below. Change them as you like; the name itself has no effect on a run.",
                ),
                *_widgets(default),
            ],
            outputs=[Preset.Output("preset", tooltip="For the PSA Attention Patch.")],
        )

    @classmethod
    def validate_inputs(cls, model: str, preset: str) -> bool:
        """Accept any name: a graph shared from a machine with other preset files runs on its numbers."""
        return True

    @classmethod
    def execute(cls, model: str, preset: str, **widgets: Any) -> io.NodeOutput:
        with errors_at("Preset Loader"):
            config = config_from_widgets(widgets, f"{model}: {preset}")
        return io.NodeOutput(config)


def _widgets(default: dict[str, Any]) -> list[io.Input]:
    """A widget for every setting that changes the result, those that few need under ``advanced``."""

    def choice(key: str, options: Any, tooltip: str, advanced: bool = True) -> io.Input:
        return io.Combo.Input(
            key, options=[str(option) for option in options], default=default[key], tooltip=tooltip, advanced=advanced
        )

    def number(key: str, least: float, tooltip: str, advanced: bool = True) -> io.Input:
        return io.Float.Input(
            key, default=default[key], min=least, max=1.0, step=0.005, round=False, tooltip=tooltip, advanced=advanced
        )

    def whole(key: str, least: int, tooltip: str, advanced: bool = True) -> io.Input:
        return io.Int.Input(key, default=default[key], min=least, max=1000, tooltip=tooltip, advanced=advanced)

    def switch(key: str, tooltip: str, advanced: bool = True) -> io.Input:
        return io.Boolean.Input(key, default=default[key], tooltip=tooltip, advanced=advanced)

    return [
        choice("attention", ("psa", "dense"), "dense leaves attention as it is, for a baseline.", False),
        *(number(f"level_{level}", 0.0, _level_tooltip(level), advanced=level > 8) for level in LEVELS),
        choice(
            "mask_mode",
            MASK_MODES,
            (
                "What bounds are shares of: thresholdbound, of each row's importance; topk, of its blocks; timestep, "
                "of the steps."
            ),
            False,
        ),
        choice("block_n", BLOCK_N, "Keys a block. Smaller blocks choose more finely.", False),
        switch("use_sim_mask", "Pool a block no further than the likeness of its keys allows.", False),
        whole("warmup_steps", 0, "Steps at the start that stay dense, counted over the whole denoising.", False),
        choice("block_m", BLOCK_M, "Queries a block."),
        number("min_full_ratio", 0.0, "thresholdbound: least share of a row's blocks at full resolution."),
        choice("importance", IMPORTANCE_ESTIMATORS, "How the importance of blocks is estimated."),
        *(number(f"sim_{key}", -1.0, f"use_sim_mask: likeness that {key} pooling needs.") for key in SIM_LEVELS),
        choice("reorder", (*REORDER_METHODS, "off"), "Puts neighbours in space and time into the same block."),
        *(whole(f"tile_{side}", 1, f"reorder Tile: {side} of a tile, in tokens.") for side in _TILE),
    ]  # fmt: skip


def _level_tooltip(level: int) -> str:
    how = "full resolution" if level == 1 else f"{level}x pooled"
    return f"Upper bound of level {level} ({how}); 0 leaves the level out. What lies above the last bound is skipped."


def config_from_widgets(widgets: dict[str, Any], description: str) -> PSAConfig:
    """The settings that the widgets show.

    Raises:
        ConfigError: they do not fit together.
    """
    return PSAConfig(
        type=widgets["attention"],
        mask_ratios=mask_ratios_from_bounds({level: widgets[f"level_{level}"] for level in LEVELS}),
        mask_mode=widgets["mask_mode"],
        block_m=int(widgets["block_m"]),
        block_n=int(widgets["block_n"]),
        use_sim_mask=widgets["use_sim_mask"],
        sim_thresholds={key: widgets[f"sim_{key}"] for key in SIM_LEVELS},
        warmup_steps=widgets["warmup_steps"],
        min_full_ratio=widgets["min_full_ratio"],
        importance=widgets["importance"],
        use_rearrange=widgets["reorder"] != "off",
        rearrange_method=widgets["reorder"] if widgets["reorder"] != "off" else "Gilbert",
        tile_size=tuple(widgets[f"tile_{side}"] for side in _TILE),
        description=description,
    )


def widgets_from_config(config: PSAConfig) -> dict[str, Any]:
    """The inverse of :func:`config_from_widgets`."""
    bounds = bounds_from_mask_ratios(config.mask_ratios)
    return {
        "attention": config.type,
        **{f"level_{level}": bounds.get(level, 0.0) for level in LEVELS},
        "mask_mode": config.mask_mode,
        "block_n": str(config.block_n),
        "use_sim_mask": config.use_sim_mask,
        "warmup_steps": config.warmup_steps,
        "block_m": str(config.block_m),
        "min_full_ratio": config.min_full_ratio,
        "importance": config.importance,
        **{f"sim_{key}": config.sim_thresholds[key] for key in SIM_LEVELS},
        "reorder": config.rearrange_method if config.use_rearrange else "off",
        **{f"tile_{side}": size for side, size in zip(_TILE, config.tile_size, strict=True)},
    }
