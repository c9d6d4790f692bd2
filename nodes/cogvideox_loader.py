"""CogVideoX Loader: CogVideoX weights as they are published, on ComfyUI's CogVideoX."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io

from ..psa_core.hosts.comfyui.cogvideox_loader import FILE_KEY, WEIGHT_DTYPES, load_cogvideox


class PSACogVideoXLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSACogVideoXLoader",
            display_name="CogVideoX Loader",
            category="PSA",
            description=(
                "Loads CogVideoX 2b, 5b, 5b-I2V, 1.5-5B or 1.5-5B-I2V from the files that their makers publish, which "
                "ComfyUI's own loader does not take, or from files with ComfyUI's names. Sets the positions and noise "
                "levels of each, so that ComfyUI's samplers work on it."
            ),
            search_aliases=["load cogvideox", "diffusers", "cogvideo", "unet loader", "load diffusion model", "sparse"],
            inputs=[
                io.Combo.Input(
                    FILE_KEY,
                    options=folder_paths.get_filename_list("diffusion_models"),
                    tooltip=(
                        "A file in models/diffusion_models. Of a model in several files (…-00001-of-00002) choose any; "
                        "the others must lie beside it."
                    ),
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=WEIGHT_DTYPES,
                    default=WEIGHT_DTYPES[0],
                    advanced=True,
                    tooltip="default: as in the file. fp8 halves the memory that the weights of a 16-bit file take.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For LoRA loaders, the PSA Attention Patch or a sampler.")],
        )

    @classmethod
    def execute(cls, unet_name: str, weight_dtype: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise("diffusion_models", unet_name)
        return io.NodeOutput(load_cogvideox(path, weight_dtype))
