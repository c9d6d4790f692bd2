"""Load Calibration: recipes that a run has measured, for other runs."""

from __future__ import annotations

from comfy_api.latest import io

from ..psa_core.hosts.comfyui import ERROR, OTHERWISE, LoadedCalibration
from ..psa_core.settings.errors import errors_at
from .calibration_files import calibration_names, user_calibrations_dir
from .save_calibration import DEFAULT_NAME
from .shared import Calibration


class PSALoadCalibration(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSALoadCalibration",
            display_name="Load Calibration",
            category="PSA",
            description=(
                "What Save Calibration has written, for a PSA Attention Patch whose mask_mode is calibrated: its heads "
                "take these recipes from the first sparse step on, and measure nothing."
            ),
            search_aliases=["psa load", "recipes", "calibrated", "share calibration", "sparse"],
            inputs=[
                io.Combo.Input(
                    "calibration",
                    options=calibration_names() or [DEFAULT_NAME],
                    tooltip="A file in ComfyUI/user/psa_presets/calibrations. Each expert of Wan 2.2 has its own.",
                ),
                io.Combo.Input(
                    "otherwise",
                    options=list(OTHERWISE),
                    default=ERROR,
                    tooltip=(
                        "What to do where there is no such file, or it is of another model or other blocks. error: say "
                        "which, and stop before sampling. measure anew: say it on the patch, whose heads choose for "
                        "themselves."
                    ),
                ),
            ],
            outputs=[Calibration.Output("calibration", tooltip="For the PSA Attention Patch.")],
        )

    @classmethod
    def validate_inputs(cls, calibration: str | None = None, otherwise: str | None = None) -> bool:
        """Refuse what cannot be loaded before anything runs. What comes from another node is None until then."""
        if calibration is not None and otherwise is not None:
            _load(calibration, otherwise)
        return True

    @classmethod
    def fingerprint_inputs(cls, calibration: str, otherwise: str) -> str:
        """Run anew when the file has changed."""
        loaded = _load(calibration, otherwise)
        return loaded.calibration.as_text if loaded.calibration else loaded.why_not

    @classmethod
    def execute(cls, calibration: str, otherwise: str) -> io.NodeOutput:
        return io.NodeOutput(_load(calibration, otherwise))


def _load(name: str, otherwise: str) -> LoadedCalibration:
    with errors_at("Load Calibration"):
        return LoadedCalibration.load(name, user_calibrations_dir(), otherwise)
