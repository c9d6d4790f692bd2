"""Save Calibration: what the heads of a run chose, as a file for other runs."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ..psa_core.hosts.comfyui import NothingSampledError, calibration_of
from ..psa_core.settings.user_calibrations import save_calibration
from ..psa_core.settings.user_presets import check_file_name
from .calibration_files import user_calibrations_dir
from .saving import SavingNode
from .shared import in_words, say

log = logging.getLogger(__name__)

DEFAULT_NAME = "mine"


class PSASaveCalibration(SavingNode):
    check_name = staticmethod(check_file_name)

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSASaveCalibration",
            display_name="Save Calibration",
            category="PSA",
            description=(
                "Writes what the heads of a calibrated run have chosen into ComfyUI/user/psa_presets/calibrations, for "
                "Load Calibration."
            ),
            search_aliases=["psa save", "recipes", "calibrated", "store calibration", "share calibration", "sparse"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that comes out of PSA Attention Patch."),
                io.AnyType.Input(
                    "samples",
                    tooltip=(
                        "What the sampler makes, or anything that is made of it: it makes this node run after sampling."
                    ),
                ),
                io.String.Input(
                    "name",
                    default=DEFAULT_NAME,
                    tooltip="Of the calibration and its file: letters, digits, spaces, . _ - + and at signs.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="Replace another calibration of this name. Off, nothing is written, and the line says so.",
                ),
                io.Model.Input(
                    "model_2",
                    optional=True,
                    tooltip=(
                        "Wan 2.2's second expert, out of its own PSA Attention Patch. Its calibration gets the name "
                        "with _2 behind it."
                    ),
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, samples: Any, name: str, overwrite: bool, model_2: Any = None) -> io.NodeOutput:
        said = [_save("model", model, name, overwrite)]
        if model_2 is not None:
            said.append(_save("model_2", model_2, f"{name}_2", overwrite))
        say(cls.hidden.unique_id, "\n".join(said))
        return io.NodeOutput()


def _save(key: str, model: Any, name: str, overwrite: bool) -> str:
    """Save what a MODEL's run has measured; what was done, for people. What was sampled may not have been saved yet, so
    that nothing here may cost it."""
    try:
        calibration = calibration_of(key, model)
        file, written = save_calibration(name, calibration, user_calibrations_dir(), overwrite=overwrite)
    except NothingSampledError as error:
        log.warning("Save Calibration: %s", error)
        return f"Nothing saved: {error}"
    except Exception as error:
        return f"Nothing saved: {in_words(error, 'Save Calibration')}"
    if not written:
        return f'"{name}" has these recipes already'
    heads = f"{len(calibration.recipes)} layers of {calibration.heads} heads"
    folder = f"{file.parent.parent.name}/{file.parent.name}"
    return f'Saved "{name}" in {folder}/{file.name}: {heads} of {calibration.model}; Load Calibration lists it'
