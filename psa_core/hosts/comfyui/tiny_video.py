"""The bundled tiny video model, loaded as ComfyUI loads a user's files."""

from __future__ import annotations

import copy
from typing import Any

import comfy.sd
import comfy.utils

from ...models.tiny_video.files import AUTOENCODER, FLOW_SHIFT, TRANSFORMER


def load_tiny_video() -> tuple[Any, Any]:
    """The MODEL, with the flow shift that it was trained with, and the VAE."""
    model = comfy.sd.load_diffusion_model(str(TRANSFORMER))
    sampling = copy.deepcopy(model.get_model_object("model_sampling"))
    sampling.set_parameters(shift=FLOW_SHIFT)
    model.add_object_patch("model_sampling", sampling)
    weights, metadata = comfy.utils.load_torch_file(str(AUTOENCODER), return_metadata=True)
    vae = comfy.sd.VAE(sd=weights, metadata=metadata)
    vae.throw_exception_if_invalid()
    return model, vae
