"""The pack's nodes, one a file."""

from comfy_api.latest import ComfyExtension, io

from .attention_patch import PSAAttentionPatch
from .preset_loader import PSAPresetLoader
from .preset_route import add_preset_route
from .radial_mask import PSARadialMask
from .sparsity_schedule import PSASparsitySchedule


class PSAExtension(ComfyExtension):
    async def on_load(self) -> None:
        add_preset_route()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [PSAAttentionPatch, PSAPresetLoader, PSASparsitySchedule, PSARadialMask]


async def comfy_entrypoint() -> PSAExtension:
    return PSAExtension()
