"""The pack's nodes, one a file."""

from comfy_api.latest import ComfyExtension, io

from .attention_patch import PSAAttentionPatch
from .preset_loader import PSAPresetLoader
from .preset_route import add_preset_route


class PSAExtension(ComfyExtension):
    async def on_load(self) -> None:
        add_preset_route()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [PSAAttentionPatch, PSAPresetLoader]


async def comfy_entrypoint() -> PSAExtension:
    return PSAExtension()
