"""Preset Loader: a preset's numbers as widgets. What the widgets show is what runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ..psa_core.settings.amount import Amount
from ..psa_core.settings.config import IMPORTANCE_ESTIMATORS, MASK_MODES, SIM_LEVELS, PSAConfig
from ..psa_core.settings.errors import ConfigError, errors_at
from ..psa_core.settings.mask_ratios import bounds_from_mask_ratios, mask_ratios_from_bounds
from ..psa_core.settings.orders import REORDER_METHODS
from ..psa_core.settings.preset_schema import ModelFamily
from ..psa_core.settings.sizes import BLOCK_M, BLOCK_N
from .preset_files import DEFAULT_FAMILY, families
from .shared import AMOUNT, Preset, amount, check_before_run, share
from .targets import CALIBRATED, TARGETS, targets_from_config, targets_from_widgets, with_both

log = logging.getLogger(__name__)

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128)
_TILE = ("frames", "height", "width")
# Of a preset's settings, those that no number shows.
HIDDEN = (
    "min_tokens", "map_steps", "early_density", "candidate_orders", "precision", "dense_backend", "max_extra_memory"
)  # fmt: skip
_WARMUP = f"Steps at the start that stay dense, counted over the whole denoising: {AMOUNT}."


def names_of(family: ModelFamily) -> list[str]:
    """The presets that this node's numbers can say; masks and schedules have nodes of their own."""
    return [name for name, config in family.presets.items() if config.radial is None and config.schedule is None]


def listed() -> dict[str, list[str]]:
    """The presets to choose from, by model; a model without any is left out."""
    names = {family.name: names_of(family) for family in families()[0].values()}
    return {model: presets for model, presets in names.items() if presets}


def default_of(family: ModelFamily) -> str:
    """The preset that choosing a model takes: the model's own default, where this node's numbers can say it."""
    names = names_of(family)
    return family.default if family.default in names else names[0]


def choices() -> dict[str, Any]:
    """What the front end fills this node's widgets with, and what is wrong in the user's files."""
    known, errors = families()
    models = {
        model: {
            "default": default_of(known[model]),
            "presets": {name: widgets_from_config(known[model].presets[name]) for name in names},
        }
        for model, names in listed().items()
    }
    return {"models": models, "errors": [str(error) for error in errors]}


class PSAPresetLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        models = listed()
        names = list(dict.fromkeys(name for each in models.values() for name in each))
        family = families()[0][DEFAULT_FAMILY]
        preset = default_of(family)
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
                    "model", options=list(models), default=DEFAULT_FAMILY, tooltip="Model whose presets to choose from."
                ),
                io.Combo.Input(
                    "preset",
                    options=names,
                    default=preset,
                    tooltip="Fills the numbers below. Change them as you like: they are what runs, not the name.",
                ),
                *_widgets(widgets_from_config(family.presets[preset])),
            ],
            outputs=[Preset.Output("preset", tooltip="For the PSA Attention Patch.")],
        )

    @classmethod
    def validate_inputs(
        cls,
        model: str,
        preset: str,
        warmup_steps: Amount | None = None,
        mask_mode: str | None = None,
        target_density: float | None = None,
        target_error: float | None = None,
    ) -> bool:
        """Accept any name: a graph shared from a machine with other preset files runs on its numbers."""
        numbers = {"mask_mode": mask_mode, "target_density": target_density, "target_error": target_error}
        return check_before_run("Preset Loader", _checked, numbers=numbers, warmup_steps=warmup_steps)

    @classmethod
    def fingerprint_inputs(cls, model: str, preset: str, **_widgets: Any) -> str:
        """Run anew when the preset's file has changed, which a prompt without numbers runs on."""
        named = _named(model, preset)
        return named.as_text if named else ""

    @classmethod
    def execute(cls, model: str, preset: str, **widgets: Any) -> io.NodeOutput:
        with errors_at("Preset Loader"):
            config = chosen(model, preset, widgets)
        if widgets:
            _warn_of_others_numbers(model, preset, config)
        return io.NodeOutput(config)


def _named(model: str, preset: str) -> PSAConfig | None:
    family = families()[0].get(model)
    return family.presets.get(preset) if family else None


def _checked(numbers: dict[str, Any], **settings: Any) -> PSAConfig:
    """Settings of which mode and targets are known, or not yet: then they are None."""
    targets = {} if None in numbers.values() else targets_from_widgets(numbers)
    return PSAConfig(mask_mode=numbers["mask_mode"] or "topk", **targets, **settings)


def chosen(model: str, preset: str, widgets: dict[str, Any]) -> PSAConfig:
    """The settings of a prompt: the numbers in it, and the preset's for those that it leaves out.

    Prompts of other releases and those written by hand need not have every number. Without any, the preset is taken
    whole, with its mask and schedule.

    Raises:
        ConfigError: numbers do not fit together, or some are left out and there is no such preset.
    """
    named = _named(model, preset)
    if named is not None and not widgets:
        return named
    widgets = with_both(widgets)
    if named is None and widgets.get("mask_mode") == CALIBRATED and not any(key in widgets for key in TARGETS):
        allowed = f"{model} has none of the name, which would say the target of {CALIBRATED}"
        raise ConfigError("preset", preset, f"{allowed}: give {' or '.join(TARGETS)}")
    if named is None:
        missing = [key for key in widgets_from_config(PSAConfig()) if key not in (*widgets, *TARGETS)]
        known, errors = families()
        family = known.get(model)
        if missing:
            there = f"{model} has {', '.join(family.presets)}" if family else f"there is no model {model}"
            there = "; ".join([there, *(f"left out: {error}" for error in errors)])
            raise ConfigError("preset", preset, f"{there}; without such a preset {', '.join(missing)} must be given")
        named = family.presets[family.default] if family else PSAConfig()
    config = config_from_widgets(widgets_from_config(named) | widgets, f"{model}: {preset}")
    return config.replace(**{key: getattr(named, key) for key in HIDDEN})


def _warn_of_others_numbers(model: str, preset: str, config: PSAConfig) -> None:
    """Say which of the two holds where a name says one preset and the numbers are those of another of the model."""
    family = families()[0].get(model)
    shown = widgets_from_config(config)
    numbers = {name: widgets_from_config(family.presets[name]) for name in names_of(family)} if family else {}
    others = [name for name, each in numbers.items() if each == shown]
    if preset in numbers and others and preset not in others:
        log.warning(
            'PSA: the preset "%s" of %s is chosen, but the numbers are those of "%s": the numbers hold. '
            "Leave them out of the prompt, or choose the preset again, to take its own",
            preset, model, others[0],
        )  # fmt: skip


@dataclass(frozen=True)
class _Widgets:
    """Widgets that a prompt may leave out, with their defaults by name."""

    default: dict[str, Any]

    def choice(self, key: str, options: Iterable[Any], tooltip: str, advanced: bool = True) -> io.Input:
        return io.Combo.Input(
            key,
            options=[str(option) for option in options],
            default=self.default[key],
            tooltip=tooltip,
            optional=True,
            advanced=advanced,
        )

    def number(self, key: str, least: float, tooltip: str, advanced: bool = True) -> io.Input:
        return share(key, self.default[key], tooltip, least, optional=True, advanced=advanced)

    def whole(self, key: str, tooltip: str) -> io.Input:
        default = self.default[key]
        return io.Int.Input(key, default=default, min=1, max=1000, tooltip=tooltip, optional=True, advanced=True)

    def switch(self, key: str, tooltip: str) -> io.Input:
        return io.Boolean.Input(key, default=self.default[key], tooltip=tooltip, optional=True, advanced=False)


def _widgets(default: dict[str, Any]) -> list[io.Input]:
    """A widget for every setting that changes the result, those that few need under ``advanced``.

    All are optional: what a prompt leaves out, its preset says.
    """
    widget = _Widgets(default)
    return [
        widget.choice("attention", ("psa", "dense"), "dense leaves attention as it is, for a baseline.", False),
        *(widget.number(f"level_{level}", 0.0, _level_tooltip(level), advanced=level > 8) for level in LEVELS),
        widget.choice(
            "mask_mode",
            MASK_MODES,
            (
                "What bounds are shares of: thresholdbound, of each row's importance; topk, of its blocks; timestep, "
                "of the steps. calibrated: no bounds; each head gets what its measured error asks for, at "
                "target_density or target_error."
            ),
            False,
        ),
        widget.choice("block_n", BLOCK_N, "Keys a block. Smaller blocks choose more finely.", False),
        widget.switch("use_sim_mask", "Pool a block no further than the likeness of its keys allows."),
        amount("warmup_steps", default["warmup_steps"], _WARMUP, optional=True),
        widget.choice("block_m", BLOCK_M, "Queries a block."),
        widget.number("min_full_ratio", 0.0, "thresholdbound: least share of a row's blocks at full resolution."),
        widget.choice("importance", IMPORTANCE_ESTIMATORS, "How the importance of blocks is estimated."),
        *(widget.number(f"sim_{key}", -1.0, f"use_sim_mask: likeness that {key} pooling needs.") for key in SIM_LEVELS),
        widget.choice(
            "reorder",
            (*REORDER_METHODS, "off"),
            "Puts neighbours in space and time into the same block; Semantic and Hybrid, tokens that are alike.",
        ),
        *(widget.whole(f"tile_{side}", f"reorder Tile and Hybrid: {side} of a tile, in tokens.") for side in _TILE),
        widget.number(
            "target_density", 0.0, "calibrated: density of every head; 0 where target_error is aimed at.", False
        ),
        widget.number(
            "target_error",
            0.0,
            "calibrated, in place of target_density: the error up to which each head is as sparse as it can be; or 0.",
            False,
        ),
    ]


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
        mask_ratios=mask_ratios_from_bounds({level: widgets[f"level_{level}"] for level in LEVELS}, "level_{}"),
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
        **targets_from_widgets(widgets),
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
        "warmup_steps": str(config.warmup_steps),
        "block_m": str(config.block_m),
        "min_full_ratio": config.min_full_ratio,
        "importance": config.importance,
        **{f"sim_{key}": config.sim_thresholds[key] for key in SIM_LEVELS},
        "reorder": config.rearrange_method if config.use_rearrange else "off",
        **{f"tile_{side}": size for side, size in zip(_TILE, config.tile_size, strict=True)},
        **targets_from_config(config),
    }
