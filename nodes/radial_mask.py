"""Radial Mask: attention between frames narrows with their distance; scenes may be cut off from each other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from comfy_api.latest import io

from ..psa_core.settings.amount import Amount
from ..psa_core.settings.errors import errors_at
from ..psa_core.settings.presets import bundled_dir, load_preset
from ..psa_core.settings.radial import MODEL_TYPES, RADIAL_MODES, SPARSITY_TYPES, RadialMask
from .preset_files import DEFAULT_FAMILY
from .shared import AMOUNT, Mask, amount, check_before_run

LENGTHS = {"short": "short (under 30 frames)", "medium": "medium (30 to 50)", "long": "long (over 50 frames)"}
CUSTOM = "custom"
# What a choice of length fills in.
FILLED = ("decay_factor", "dense_layers", "dense_timesteps")
_SETTINGS = (
    *("mode", "model_type", "decay_factor", "block_size", "sparsity_type", "dense_layers", "dense_timesteps"),
    *("last_dense_timesteps", "scene_boundaries", "scene_adjacency"),
)
_PIXELS = 16


# ComfyUI asks for a node's schema several times a prompt.
@lru_cache(maxsize=1)
def length_defaults() -> dict[str, dict[str, Any]]:
    """What each choice of length fills in, from the bundled presets."""
    found: dict[str, dict[str, Any]] = {}
    for name, label in LENGTHS.items():
        mask = load_preset(DEFAULT_FAMILY, f"radial_{name}", bundled_dir()).radial
        found[label] = {key: getattr(mask, key) for key in FILLED}
        # A widget for an amount of steps holds a text.
        found[label]["dense_timesteps"] = str(found[label]["dense_timesteps"])
    return found


class PSARadialMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        default = length_defaults()[LENGTHS["medium"]]
        return io.Schema(
            node_id="PSARadialMask",
            display_name="Radial Mask",
            category="PSA",
            description=(
                "For the PSA Attention Patch: attention between frames narrows with their distance (RadialAttention), "
                "and scenes may be cut off from each other. Draws the mask on itself."
            ),
            search_aliases=["radial attention", "sparse mask", "scene mask", "long video", "decay", "psa mask"],
            inputs=[
                io.Combo.Input(
                    "video_length",
                    options=[*LENGTHS.values(), CUSTOM],
                    default=LENGTHS["medium"],
                    tooltip="Fills in decay_factor, dense_layers and dense_timesteps. The numbers are what runs.",
                ),
                *_mask_widgets(default),
                *_scene_widgets(),
                *_preview_widgets(),
            ],
            outputs=[Mask.Output("mask", tooltip="For the PSA Attention Patch.")],
        )

    @classmethod
    def validate_inputs(
        cls,
        dense_timesteps: Amount | None,
        last_dense_timesteps: Amount | None,
        scene_boundaries: str | None,
        scene_adjacency: str | None,
    ) -> bool:
        """Refuse texts that cannot be read before anything runs. A text from another node is None until then."""
        return check_before_run(
            "Radial Mask",
            RadialMask,
            dense_timesteps=dense_timesteps,
            last_dense_timesteps=last_dense_timesteps,
            scene_boundaries=scene_boundaries,
            scene_adjacency=scene_adjacency,
        )

    @classmethod
    def execute(cls, **widgets: Any) -> io.NodeOutput:
        with errors_at("Radial Mask"):
            return io.NodeOutput(mask_from_widgets(widgets))


def mask_from_widgets(widgets: Mapping[str, Any]) -> RadialMask:
    """The mask that the widgets describe; what they say of the picture is left alone.

    Raises:
        ConfigError: they do not fit together.
    """
    return RadialMask(**{key: widgets[key] for key in _SETTINGS})


def _mask_widgets(default: dict[str, Any]) -> list[io.Input]:
    def whole(key: str, value: float, least: int, tooltip: str, advanced: bool = False) -> io.Input:
        return io.Int.Input(key, default=int(value), min=least, max=1024, tooltip=tooltip, advanced=advanced)

    return [
        io.Combo.Input(
            "mode",
            options=list(RADIAL_MODES),
            default=RADIAL_MODES[0],
            tooltip=(
                "How the mask meets PSA. radial only: the mask alone decides, as in RadialAttention. intersect: PSA "
                "chooses, and what the mask cuts is skipped. finer wins: of both, the finer level. coarsen: as radial "
                "only, but what would be cut is pooled, by 2, 4 or 8 with the distance of frames."
            ),
        ),
        io.Float.Input(
            "decay_factor",
            default=default["decay_factor"],
            min=0.01,
            max=16.0,
            step=0.05,
            round=False,
            tooltip="Scales the window between distant frames: smaller is faster and sees less.",
        ),
        whole("dense_layers", default["dense_layers"], 0, "Transformer blocks, from the first, that stay dense."),
        amount("dense_timesteps", default["dense_timesteps"], f"Steps at the start that stay dense: {AMOUNT}."),
        amount("last_dense_timesteps", "0", f"Steps at the end that stay dense: {AMOUNT}."),
        io.Combo.Input(
            "model_type",
            options=list(MODEL_TYPES),
            default=MODEL_TYPES[0],
            tooltip=(
                "The rule for near frames. wan: neighbours see each other in full, and all see the first frame. "
                "cogvideox: neighbours see half a frame. auto: by the model that is sampled."
            ),
            advanced=True,
        ),
        whole("block_size", 128, 1, "Least window in tokens; below it, frame pairs are thinned out.", advanced=True),
        io.Combo.Input(
            "sparsity_type",
            options=list(SPARSITY_TYPES),
            default=SPARSITY_TYPES[0],
            tooltip="dense switches the decay off, so that scenes alone decide.",
            advanced=True,
        ),
    ]


def _scene_widgets() -> list[io.Input]:
    return [
        io.String.Input(
            "scene_boundaries",
            default="",
            placeholder="0, 15, 30, 45",
            tooltip="First frame of every scene and the end of the clip, in video frames. Empty: no scenes.",
        ),
        io.String.Input(
            "scene_adjacency",
            default="neighbours",
            tooltip=(
                "Which scenes see which: neighbours, all, own, or a matrix whose row i says what scene i sees, such as "
                "1 1 0; 1 1 1; 0 1 1."
            ),
            advanced=True,
        ),
    ]


def _preview_widgets() -> list[io.Input]:
    def size(key: str, default: int, what: str, step: int) -> io.Input:
        tooltip = f"{what} of the video that the picture is drawn for. The run takes its own."
        return io.Int.Input(key, default=default, min=step, max=4096, step=step, tooltip=tooltip, advanced=True)

    return [
        size("preview_width", 832, "Width", _PIXELS),
        size("preview_height", 480, "Height", _PIXELS),
        size("preview_frames", 81, "Frames", 1),
    ]
