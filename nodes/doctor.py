"""PSA Doctor: what this machine has, and how fast its dense attention and the pack's are."""

from __future__ import annotations

import logging
from typing import Any

import comfy.utils
from comfy_api.latest import io

from ..psa_core.apps.doctor.clip import DEFAULT_FAMILY, Clip
from ..psa_core.apps.doctor.diagnosis import Host, diagnose
from ..psa_core.apps.doctor.measure import HostAttention
from ..psa_core.hosts.comfyui.models import presets_of, recognise
from ..psa_core.hosts.comfyui.own_attention import (
    attention_device,
    comfyui_version,
    make_room,
    own_attention,
    stop_if_asked,
)
from .preset_files import user_presets_dir
from .shared import as_image, preview

log = logging.getLogger(__name__)


class PSADoctor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSADoctor",
            display_name="PSA Doctor",
            category="PSA",
            description=(
                "Says what this machine has and whether the kernels run on it, and measures in under a minute how fast "
                "its dense attention is (ComfyUI's own, cuDNN, FlashAttention, and comfy-kitchen's INT8 and "
                "SageAttention where installed) beside the pack's, and which dense_backend runs dense steps fastest. "
                "The text and the JSON are for reports."
            ),
            search_aliases=["benchmark", "gpu speed test", "is it faster", "report a problem", "sparse attention"],
            inputs=[
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip=(
                        "A video model that the pack knows, whose heads, head size and default preset are measured, "
                        "and the attention that other nodes have set on it. Without one, Wan 2.1 1.3B: 12 heads of 128."
                    ),
                ),
                _size(
                    "width",
                    832,
                    16,
                    "Width of the video in pixels. With Wan 832 x 480 and 81 frames are 32,760 tokens.",
                ),
                _size("height", 480, 16, "Height of the video in pixels. 1280 x 720 and 81 frames are 75,600 tokens."),
                _size(
                    "frames", 81, 1, "Frames of the video: longer clips gain more. Out of memory, it says what fits."
                ),
            ],
            outputs=[
                io.Image.Output("picture", tooltip="The picture on this node, for Save Image."),
                io.String.Output("text", tooltip="What was found and measured, to post in a report."),
                io.String.Output("report", tooltip="The same as JSON, with every number."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, width: int, height: int, frames: int, model: Any = None) -> io.NodeOutput:
        known = None if model is None else recognise(model.model)
        heads = None if known is None else (known.heads, known.head_dim)
        clip = Clip.of(DEFAULT_FAMILY if known is None else presets_of(known), width, height, frames, heads)
        make_room(clip.working_memory)
        diagnosis = diagnose(clip, _host(model, clip if known else None), _progress())
        text = diagnosis.text()
        log.info("%s", text)
        picture = diagnosis.picture()
        return io.NodeOutput(as_image(picture), text, diagnosis.as_json(), ui=preview(picture, cls))


def _size(key: str, default: int, step: int, tooltip: str) -> io.Input:
    return io.Int.Input(key, default=default, min=step, max=4096, step=step, tooltip=tooltip)


def _host(model: Any, clip: Clip | None) -> Host:
    """What ComfyUI says of itself, and of a connected model, whose clip is None where it is not known."""
    version, attention, device = comfyui_version(), HostAttention(*own_attention(model)), attention_device()
    facts = [("ComfyUI", f"{version or 'of unknown version'}, models on {device}, attention: {attention.name}")]
    if model is not None:
        name = type(model.model).__name__
        what = f"measured as {clip.family.name}" if clip else f"not a model that is known: {DEFAULT_FAMILY} is measured"
        facts.append(("model", f"{name}, {what}"))
    return Host(facts, user_presets_dir(), version, attention, device)


def _progress() -> Any:
    bar = comfy.utils.ProgressBar(1)

    def show(done: int, whole: int) -> None:
        stop_if_asked()
        bar.update_absolute(done, whole)

    return show
