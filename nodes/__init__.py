"""The pack's nodes, one a file."""

from comfy_api.latest import ComfyExtension, io

from .attention_patch import PSAAttentionPatch
from .cogvideox_loader import PSACogVideoXLoader
from .cogvideox_lora import PSACogVideoXLoRA
from .compare import PSACompare
from .preset_loader import PSAPresetLoader
from .preset_route import add_preset_route
from .radial_mask import PSARadialMask
from .report import PSAReport
from .save_preset import PSASavePreset
from .sparsity_schedule import PSASparsitySchedule
from .tiny_video_model import PSATinyVideoModel
from .tiny_video_prompt import PSATinyVideoPrompt


class PSAExtension(ComfyExtension):
    async def on_load(self) -> None:
        add_preset_route()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            PSAAttentionPatch,
            PSAPresetLoader,
            PSASparsitySchedule,
            PSARadialMask,
            PSAReport,
            PSACompare,
            PSASavePreset,
            PSATinyVideoModel,
            PSATinyVideoPrompt,
            PSACogVideoXLoader,
            PSACogVideoXLoRA,
        ]


async def comfy_entrypoint() -> PSAExtension:
    return PSAExtension()
