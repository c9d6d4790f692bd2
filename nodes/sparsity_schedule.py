"""Sparsity Schedule: what stays dense when, and how mask_ratios move over the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..psa_core.settings.amount import Amount
from ..psa_core.settings.errors import errors_at
from ..psa_core.settings.mask_ratios import DEFAULT_MASK_RATIOS, bounds_from_mask_ratios, mask_ratios_from_bounds
from ..psa_core.settings.schedule import CURVES, Schedule
from .shared import AMOUNT, amount, check_before_run, share
from .shared import Schedule as ScheduleSocket

PRESET = "preset"
LEVELS = (1, 2, 4, 8)
START = bounds_from_mask_ratios(DEFAULT_MASK_RATIOS)
END = {1: 0.1, 2: 0.15, 4: 0.2, 8: 0.4}
# Settings that 0.1.0 did not have: its prompts come without them.
_ADDED = ("steps", "start_step", "start_percent", "end_percent")


class PSASparsitySchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSASparsitySchedule",
            display_name="Sparsity Schedule",
            category="PSA",
            description=(
                "For the PSA Attention Patch: which steps and layers stay dense, and how mask_ratios move over the "
                "steps. Steps are counted over the whole denoising, also when KSamplerAdvanced or Wan 2.2's two "
                "experts each sample a part. Draws the budget of every step on itself."
            ),
            search_aliases=["psa schedule", "sparse steps", "dense layers", "warmup", "mask_ratios"],
            inputs=[
                *_dense_widgets(),
                io.Combo.Input(
                    "curve",
                    options=[PRESET, *CURVES],
                    default=PRESET,
                    tooltip=(
                        "How mask_ratios move over the sparse steps. preset: those of the preset throughout. constant: "
                        "start throughout. linear, cosine: from start to end. timestep: start as parts of the whole "
                        "denoising, one level for all blocks of a step."
                    ),
                ),
                *_bound_widgets("start", START),
                *_bound_widgets("end", END),
                io.Int.Input(
                    "preview_steps",
                    default=30,
                    min=1,
                    max=200,
                    tooltip="Steps that the picture is drawn for, where steps is 0. The run takes the sampler's.",
                    advanced=True,
                ),
                *_part_widgets(),
            ],
            outputs=[ScheduleSocket.Output("schedule", tooltip="For the PSA Attention Patch.")],
        )

    @classmethod
    def validate_inputs(
        cls,
        warmup: Amount | None,
        last_dense: Amount | None,
        dense_layers: str | None,
        steps: int | None = 0,
        start_step: int | None = 0,
        start_percent: float | None = 0.0,
        end_percent: float | None = 1.0,
    ) -> bool:
        """Refuse what cannot be before anything runs. A value from another node is None until then."""
        return check_before_run(
            "Sparsity Schedule",
            Schedule,
            warmup=_warmup(warmup),
            last_dense=last_dense,
            dense_layers=dense_layers,
            steps=steps,
            # Alone it would be refused.
            start_step=None if steps is None else start_step,
            start_percent=start_percent,
            end_percent=end_percent,
        )

    @classmethod
    def execute(cls, **widgets: Any) -> io.NodeOutput:
        with errors_at("Sparsity Schedule"):
            return io.NodeOutput(schedule_from_widgets(widgets))


def schedule_from_widgets(widgets: Mapping[str, Any]) -> Schedule:
    """The schedule that the widgets describe; what they say of the picture is left alone.

    Raises:
        ConfigError: they do not fit together.
    """
    curve = widgets["curve"]
    ratios = {} if curve == PRESET else {key: _ratios(key, widgets) for key in ("start", "end")}
    return Schedule(
        warmup=_warmup(widgets["warmup"]),
        last_dense=widgets["last_dense"],
        dense_layers=widgets["dense_layers"],
        curve="constant" if curve == PRESET else curve,
        **{key: widgets[key] for key in _ADDED if key in widgets},
        **ratios,
    )


def _dense_widgets() -> list[io.Input]:
    return [
        amount("warmup", PRESET, f"Steps at the start that stay dense: preset, {AMOUNT}."),
        amount("last_dense", "0", f"Steps at the end that stay dense: {AMOUNT}."),
        io.String.Input(
            "dense_layers",
            default="",
            placeholder="0, 1, 38-39",
            tooltip="Transformer blocks that stay dense at every step, counted from 0, such as 0, 1, 38-39.",
        ),
    ]


def _bound_widgets(name: str, default: dict[int, float]) -> list[io.Input]:
    """Upper bounds of levels, as in the Preset Loader."""
    return [
        share(f"{name}_{level}", default[level], f"{name} set: upper bound of level {level}; 0 leaves the level out.")
        for level in LEVELS
    ]


def _part_widgets() -> list[io.Input]:
    """Widgets of what 0.1.0 did not have, which are therefore optional."""
    return [
        io.Int.Input(
            "steps",
            default=0,
            min=0,
            max=10000,
            optional=True,
            advanced=True,
            tooltip="Steps of the whole denoising; 0 finds them out. A number wins over what would be found.",
        ),
        io.Int.Input(
            "start_step",
            default=0,
            min=0,
            max=10000,
            optional=True,
            advanced=True,
            tooltip="With steps: the step of the whole at which this patch's sampler begins.",
        ),
        *(
            io.Float.Input(
                f"{side}_percent",
                default=default,
                min=0.0,
                max=1.0,
                step=0.001,
                round=False,
                optional=True,
                advanced=True,
                tooltip=(
                    f"{what} share of the model's noise schedule, as in core's nodes. A step runs sparse only where "
                    "both this window and the dense steps allow it."
                ),
            )
            for side, default, what in (("start", 0.0, "Dense before this"), ("end", 1.0, "Dense after this"))
        ),
    ]


def _warmup(text: Amount | None) -> Amount | None:
    return None if isinstance(text, str) and text.strip() == PRESET else text


def _ratios(name: str, bounds: Mapping[str, Any]) -> Any:
    return mask_ratios_from_bounds({level: bounds[f"{name}_{level}"] for level in LEVELS}, f"{name}_{{}}")
