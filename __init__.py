"""ComfyUI entry of the Pyramid Sparse Attention pack."""

import importlib.util

# Tools such as pytest import this file as well, with no ComfyUI around it.
if __package__ and importlib.util.find_spec("comfy_api"):
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
