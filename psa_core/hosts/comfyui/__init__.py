"""ComfyUI host: patches a MODEL so that its video self-attention runs sparse. Imports ComfyUI."""

from .loaded_calibration import ERROR, OTHERWISE, LoadedCalibration
from .models import AnyModel, VideoModel, model_of, presets_of, recognise
from .patch import Patch, patch_model
from .sampled import NothingSampledError, calibration_of, reports_of

__all__ = [
    "ERROR",
    "OTHERWISE",
    "AnyModel",
    "LoadedCalibration",
    "NothingSampledError",
    "Patch",
    "VideoModel",
    "calibration_of",
    "model_of",
    "patch_model",
    "presets_of",
    "recognise",
    "reports_of",
]
