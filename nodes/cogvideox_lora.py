"""CogVideoX LoRA Loader: a LoRA as diffusers writes it, on ComfyUI's CogVideoX."""

from __future__ import annotations

import logging

import folder_paths
from comfy_api.latest import io

from ..psa_core.hosts.comfyui.cogvideox_lora import apply_cogvideox_lora
from .shared import say

log = logging.getLogger(__name__)


class PSACogVideoXLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSACogVideoXLoRA",
            display_name="CogVideoX LoRA Loader",
            category="PSA",
            description=(
                "Applies a LoRA to CogVideoX, whoever named its keys: diffusers, finetrainers, kohya's scripts or "
                "ComfyUI. ComfyUI's own loader knows only the last. Shows how much of the file fitted."
            ),
            search_aliases=["lora", "cogvideox lora", "diffusers lora", "4 steps", "few steps", "distilled", "sparse"],
            inputs=[
                io.Model.Input("model", tooltip="A CogVideoX model, before or behind a PSA Attention Patch."),
                io.Combo.Input(
                    "lora_name",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A file in models/loras. The 4-step PSA LoRA is for CogVideoX-5B: 4 steps, cfg 1.",
                ),
                io.Float.Input(
                    "strength_model",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip=(
                        "How much of the LoRA is added; negative takes it away. For a file that states no alpha and "
                        "was trained with one other than its rank, alpha / rank."
                    ),
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with the LoRA.")],
            hidden=[io.Hidden.unique_id],
            # The id decides where the report appears, so a twin of this node must not reuse its result.
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, model, lora_name: str, strength_model: float) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        patched, mapped = apply_cogvideox_lora(model, path, lora_name, strength_model)
        line = mapped.line()
        log.log(logging.WARNING if mapped.unused else logging.INFO, "%s", line)
        say(cls.hidden.unique_id, line)
        return io.NodeOutput(patched)
