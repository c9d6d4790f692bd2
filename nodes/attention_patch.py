"""PSA Attention Patch: MODEL in, MODEL out."""

from __future__ import annotations

import functools
import logging
from typing import Any

from comfy_api.latest import io

from .. import psa_core as core
from ..psa_core.hosts.comfyui import (
    AnyModel,
    LoadedCalibration,
    Patch,
    VideoModel,
    model_of,
    patch_model,
    presets_of,
)
from ..psa_core.hosts.comfyui.dense_backend import check_dense_backend
from ..psa_core.hosts.comfyui.models import OFF, UNKNOWN_MODELS, VIDEO
from ..psa_core.hosts.reasons import UNKNOWN_MODEL
from ..psa_core.ops.backends import BACKENDS
from ..psa_core.settings.config import DENSE_BACKENDS, PRECISIONS
from ..psa_core.settings.dial import QUALITIES, preset_of
from ..psa_core.settings.errors import errors_at
from ..psa_core.settings.presets import bundled_dir, load_preset
from ..psa_core.settings.validation import check_choice
from .preset_files import DEFAULT_FAMILY
from .preset_loader import widgets_from_config
from .shared import Calibration, Mask, Preset, Schedule, say

log = logging.getLogger(__name__)

# What the node did before it had a dial, and goes on to do for prompts and graphs from then.
PRESET = "preset"
_QUALITIES = (*QUALITIES, PRESET)
_PRECISIONS = (PRESET, "auto", *(name for name in PRECISIONS if name != "auto"))
_DENSE_BACKENDS = (PRESET, *DENSE_BACKENDS)
AS_THEY_LIE = "not a model that the pack knows: tokens in the order they have, no static masks"


class PSAAttentionPatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSAAttentionPatch",
            display_name="PSA Attention Patch",
            category="PSA",
            description=(
                "Runs the self-attention of video models as Pyramid Sparse Attention. Put it between the model loader "
                "and the sampler. After each run it shows what it did."
            ),
            search_aliases=["sparse attention", "pyramid", "speed", "faster video", "wan", "cogvideox"],
            inputs=[
                io.Model.Input("model", tooltip="A video model; what unknown_models leaves out stays as it is."),
                io.Boolean.Input("enabled", default=True, tooltip="Off hands the model on unchanged."),
                io.Combo.Input(
                    "backend",
                    options=list(BACKENDS),
                    default="auto",
                    tooltip=(
                        "auto: Triton kernels where they can run, else dense attention. triton: the same, and an error "
                        "where they cannot. torch: plain PyTorch, slow, runs anywhere."
                    ),
                    advanced=True,
                ),
                io.Int.Input(
                    "min_tokens",
                    default=0,
                    min=0,
                    max=1 << 20,
                    tooltip=(
                        "Clips with fewer tokens than this stay dense: sparse attention pays off on long ones. 0 takes "
                        "the preset's number."
                    ),
                    advanced=True,
                ),
                *_sockets(),
                io.Combo.Input(
                    "quality",
                    options=list(_QUALITIES),
                    default="balanced",
                    tooltip=(
                        "How near to dense attention: fast, balanced or near_dense, which measure the model at hand. "
                        "preset: the model's default preset. A Preset Loader comes before all of them."
                    ),
                    optional=True,
                ),
                *_later_widgets(),
            ],
            outputs=[io.Model.Output(tooltip="The patched model.")],
            hidden=[io.Hidden.unique_id],
            # The id decides where the report appears, so a twin of this node must not reuse its result.
            not_idempotent=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        enabled: bool,
        backend: str,
        min_tokens: int,
        preset: core.PSAConfig | None = None,
        mask: core.RadialMask | None = None,
        schedule: core.Schedule | None = None,
        calibration: LoadedCalibration | None = None,
        quality: str = PRESET,
        unknown_models: str = OFF,
        precision: str = PRESET,
        dense_backend: str = PRESET,
        max_extra_memory: float = 0.0,
    ) -> io.NodeOutput:
        if not enabled:
            say(cls.hidden.unique_id, "PSA: off")
            return io.NodeOutput(model)
        check_choice("unknown_models", unknown_models, UNKNOWN_MODELS)
        check_choice("precision", precision, _PRECISIONS)
        check_choice("dense_backend", dense_backend, _DENSE_BACKENDS)
        video_model = model_of(model.model, unknown_models)
        if video_model is None:
            log.warning("PSA: %s stays dense: %s", type(model.model).__name__, UNKNOWN_MODEL)
        source = _source(quality, loaded=preset is not None)
        if preset is None:
            family = presets_of(video_model) if video_model else DEFAULT_FAMILY
            preset = load_preset(family, None if quality == PRESET else preset_of(quality), bundled_dir())
            if video_model:
                log.info("PSA: recognised %s, using %s", family, source or "its default preset")
        config = _config(
            preset,
            video_model,
            min_tokens=min_tokens or None,
            radial=mask,
            schedule=schedule,
            precision=None if precision == PRESET else precision,
            dense_backend=None if dense_backend == PRESET else dense_backend,
            max_extra_memory=max_extra_memory or None,
        )
        if video_model is not None:
            with errors_at("PSA Attention Patch"):
                check_dense_backend(config.dense_backend, model.model, video_model.head_dim)
        announce = functools.partial(_announce, cls.hidden.unique_id, preset)
        recipes = None
        remarks: tuple[str, ...] = (AS_THEY_LIE,) if isinstance(video_model, AnyModel) else ()
        if calibration is not None and video_model is not None:
            with errors_at("PSA Attention Patch"):
                recipes, more = calibration.fitted(config, video_model)
            remarks += more
        patch = Patch(config, backend, video_model, announce, recipes, remarks, source)
        return io.NodeOutput(patch_model(model, patch))


def _sockets() -> list[io.Input]:
    """What other nodes of the pack say."""
    return [
        Preset.Input(
            "preset",
            optional=True,
            tooltip="From a Preset Loader. Without one the model is recognised and its default preset used.",
        ),
        Mask.Input("mask", optional=True, tooltip="From a Radial Mask."),
        Schedule.Input(
            "schedule",
            optional=True,
            tooltip="From a Sparsity Schedule: its warm-up and mask_ratios come before the preset's.",
        ),
        Calibration.Input(
            "calibration",
            optional=True,
            tooltip="From a Load Calibration: calibrated heads take its recipes and measure nothing.",
        ),
    ]


def _later_widgets() -> list[io.Input]:
    """What later releases have added, in the order in which they did."""
    return [
        io.Combo.Input(
            "unknown_models",
            options=list(UNKNOWN_MODELS),
            default=VIDEO,
            tooltip=(
                "Models that the pack does not know: video takes those that make videos, with tokens in the "
                "order they have and without static masks; all takes images too; off leaves all models dense "
                "but Wan and CogVideoX."
            ),
            optional=True,
            advanced=True,
        ),
        io.Combo.Input(
            "precision",
            options=list(_PRECISIONS),
            default=PRESET,
            tooltip=(
                "What sparse attention multiplies in. preset: what the preset says. auto: INT8, and FP8 where "
                "the GPU has it, except in heads where that adds more than 2 % of error. What a GPU lacks "
                "gives way to what it has."
            ),
            optional=True,
            advanced=True,
        ),
        io.Combo.Input(
            "dense_backend",
            options=list(_DENSE_BACKENDS),
            default=PRESET,
            tooltip=(
                "What runs self-attention that stays dense, as in warm-up. preset: what the preset says. "
                "model: the model's own. cudnn: exact, often faster. comfy_kitchen and sage, if installed, "
                "are faster still, but INT8 is an approximation. PSA Doctor says which is the fastest here."
            ),
            optional=True,
            advanced=True,
        ),
        io.Float.Input(
            "max_extra_memory",
            default=0.0,
            min=0.0,
            max=1024.0,
            step=0.25,
            tooltip=(
                "GiB that a sparse call may take beside its tensors: heads are computed a few at a time, with "
                "the same result, for GPUs that would run out of memory. 0 takes the preset's number, which "
                "has no limit where it says none."
            ),
            optional=True,
            advanced=True,
        ),
    ]


def _source(quality: str, loaded: bool) -> str:
    """Which of the dial and a Preset Loader holds, for people; "" where no dial is asked for.

    Raises:
        ConfigError: another node says a quality that there is not.
    """
    check_choice("quality", quality, _QUALITIES)
    if quality == PRESET:
        return ""
    return f"quality: that of the Preset Loader, not {quality}" if loaded else f"quality: {quality}"


def _config(preset: core.PSAConfig, video_model: VideoModel | None, **inputs: Any) -> core.PSAConfig:
    """A preset with what this node's inputs say in place of its own; None says nothing."""
    config = preset.replace(**{key: value for key, value in inputs.items() if value is not None})
    if config.radial is not None and config.radial.model_type == "auto" and video_model is not None:
        config = config.replace(radial=config.radial.replace(model_type=video_model.mask_rule))
    return config


def _announce(node_id: str, preset: core.PSAConfig, line: str, density: float | None = None) -> None:
    """Show a line, and beside the numbers of a Preset Loader the density that they came to."""
    say(node_id, line, **({} if density is None else {"density": density, "numbers": widgets_from_config(preset)}))
