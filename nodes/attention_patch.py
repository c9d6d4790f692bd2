"""PSA Attention Patch: MODEL in, MODEL out."""

from __future__ import annotations

import functools
import logging

from comfy_api.latest import io

from .. import psa_core as core
from ..psa_core.hosts.comfyui import LoadedCalibration, Patch, patch_model, recognise
from ..psa_core.ops.backends import BACKENDS
from ..psa_core.settings.errors import errors_at
from ..psa_core.settings.presets import bundled_dir, load_preset
from .preset_loader import widgets_from_config
from .shared import Calibration, Mask, Preset, Schedule, say

log = logging.getLogger(__name__)


class PSAAttentionPatch(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSAAttentionPatch",
            display_name="PSA Attention Patch",
            category="PSA",
            description=(
                "Runs the self-attention of Wan and CogVideoX as Pyramid Sparse Attention. Put it between the model "
                "loader and the sampler. After each run it shows what it did."
            ),
            search_aliases=["sparse attention", "pyramid", "speed", "faster video", "wan", "cogvideox"],
            inputs=[
                io.Model.Input("model", tooltip="A Wan or CogVideoX model; any other is left as it is."),
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
    ) -> io.NodeOutput:
        if not enabled:
            say(cls.hidden.unique_id, "PSA: off")
            return io.NodeOutput(model)
        video_model = recognise(model.model)
        if video_model is None:
            log.warning("PSA: %s is not a Wan or CogVideoX model and stays dense", type(model.model).__name__)
        if preset is None:
            family = video_model.family if video_model else "Wan2.1_1.3b"
            preset = load_preset(family, path=bundled_dir())
            if video_model:
                log.info("PSA: recognised %s, using its default preset", family)
        given = {"min_tokens": min_tokens or None, "radial": mask, "schedule": schedule}
        config = preset.replace(**{key: value for key, value in given.items() if value is not None})
        announce = functools.partial(_announce, cls.hidden.unique_id, preset)
        recipes, remarks = None, tuple[str, ...]()
        if calibration is not None and video_model is not None:
            with errors_at("PSA Attention Patch"):
                recipes, remarks = calibration.fitted(config, model.model, video_model)
        patch = Patch(config, backend, video_model, announce, recipes, remarks)
        return io.NodeOutput(patch_model(model, patch))


def _announce(node_id: str, preset: core.PSAConfig, line: str, density: float | None = None) -> None:
    """Show a line, and beside the numbers of a Preset Loader the density that they came to."""
    say(node_id, line, **({} if density is None else {"density": density, "numbers": widgets_from_config(preset)}))
