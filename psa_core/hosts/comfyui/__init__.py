"""ComfyUI host: patches a MODEL so that its video self-attention runs sparse. Imports ComfyUI."""

from .models import VideoModel, recognise
from .patch import Patch, patch_model, reports_of

__all__ = ["Patch", "VideoModel", "patch_model", "recognise", "reports_of"]
