"""ComfyUI entry of the Pyramid Sparse Attention pack."""

# Without a package around it this file is being looked at by a tool, not loaded by ComfyUI.
if __package__:
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
