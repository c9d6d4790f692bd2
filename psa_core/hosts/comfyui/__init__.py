"""ComfyUI host: patches a MODEL so that its video self-attention runs sparse. Imports ComfyUI."""

from .loaded_calibration import ERROR, OTHERWISE, LoadedCalibration
from .models import VideoModel, recognise
from .patch import Patch, patch_model
from .sampled import NothingSampledError, calibration_of, reports_of

__all__ = [
    "ERROR",
    "OTHERWISE",
    "LoadedCalibration",
    "NothingSampledError",
    "Patch",
    "VideoModel",
    "calibration_of",
    "patch_model",
    "recognise",
    "reports_of",
]
