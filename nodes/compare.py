"""PSA Compare: how near a video is to its dense twin, as a plot, as a video and in numbers."""

from __future__ import annotations

import json
from typing import Any

import comfy.utils
import torch
from comfy_api.latest import io
from PIL import Image

from ..psa_core.report.pictures.note import note_picture
from .shared import as_image, in_words, preview, require


class PSACompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSACompare",
            display_name="PSA Compare",
            category="PSA",
            description=(
                "How near a video is to a reference: PSNR and SSIM of every frame, flicker, and what differs as a "
                "video. From 30 dB of PSNR on a difference is hard to see; under 20 dB it is another video. Give it "
                "the video of dense attention (attention: dense in a Preset Loader) and that of sparse attention, of "
                "one seed."
            ),
            search_aliases=[
                "psnr",
                "ssim",
                "flicker",
                "video quality",
                "difference",
                "compare videos",
                "dense or sparse",
            ],
            inputs=[
                io.Image.Input("reference", tooltip="The video to compare with: that of dense attention."),
                io.Image.Input(
                    "video", tooltip="The video to judge, of the same length and size. Transparency is left out."
                ),
                io.Float.Input(
                    "gain",
                    default=4.0,
                    min=1.0,
                    max=64.0,
                    step=0.5,
                    tooltip="Amplifies the difference video. The plot and the numbers do not change.",
                ),
            ],
            outputs=[
                io.Image.Output("plot", tooltip="PSNR and SSIM by frame, their means and flicker in the title."),
                io.Image.Output("difference", tooltip="How far each pixel is from the reference's, amplified by gain."),
                io.String.Output(
                    "numbers",
                    tooltip=(
                        "JSON: means, flicker, and PSNR and SSIM by frame. The PSNR of equal frames is "
                        '"identical"; flicker is null where the reference does not move.'
                    ),
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, reference: torch.Tensor, video: torch.Tensor, gain: float) -> io.NodeOutput:
        try:
            picture, difference, numbers = _compare(reference, video, gain)
        except Exception as error:
            said = in_words(error, "PSA Compare")
            picture, difference, numbers = note_picture(said), torch.zeros_like(reference[..., :3]), {"error": said}
        document = json.dumps(numbers, indent=1, allow_nan=False)
        return io.NodeOutput(as_image(picture), difference, document, ui=preview(picture, cls))


def _compare(
    reference: torch.Tensor, video: torch.Tensor, gain: float
) -> tuple[Image.Image, torch.Tensor, dict[str, Any]]:
    """The plot, the difference as a video and the numbers."""
    require("matplotlib", "skimage")
    from ..psa_core.report.difference import compare_videos
    from ..psa_core.report.pictures.quality import quality_picture

    progress = comfy.utils.ProgressBar(len(reference))
    found = compare_videos(video, reference, gain, lambda: progress.update(1))
    return quality_picture(found.quality), found.video, found.quality.as_dict()
