"""The pack's nodes, one a file."""

from aiohttp import web
from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from . import previews
from .attention_patch import PSAAttentionPatch
from .calibration_files import calibration_names
from .cogvideox_loader import PSACogVideoXLoader
from .cogvideox_lora import PSACogVideoXLoRA
from .compare import PSACompare
from .doctor import PSADoctor
from .load_calibration import PSALoadCalibration
from .preset_loader import PSAPresetLoader, choices
from .radial_mask import PSARadialMask, length_defaults
from .report import PSAReport
from .save_calibration import PSASaveCalibration
from .save_preset import PSASavePreset
from .sparsity_schedule import PSASparsitySchedule
from .tiny_video_model import PSATinyVideoModel
from .tiny_video_prompt import PSATinyVideoPrompt


class PSAExtension(ComfyExtension):
    async def on_load(self) -> None:
        PromptServer.instance.routes.get("/psa/presets")(_presets)
        previews.add_routes(PromptServer.instance.routes)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            PSAAttentionPatch,
            PSAPresetLoader,
            PSASparsitySchedule,
            PSARadialMask,
            PSAReport,
            PSACompare,
            PSADoctor,
            PSASavePreset,
            PSASaveCalibration,
            PSALoadCalibration,
            PSATinyVideoModel,
            PSATinyVideoPrompt,
            PSACogVideoXLoader,
            PSACogVideoXLoRA,
        ]


async def _presets(request: web.Request) -> web.Response:
    """What the front end fills widgets with. A preset file that has changed is read anew."""
    return web.json_response({**choices(), "radial": length_defaults(), "calibrations": calibration_names()})


async def comfy_entrypoint() -> PSAExtension:
    return PSAExtension()
