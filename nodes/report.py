"""PSA Report: what the attention of a run did, as a picture and as JSON."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io
from PIL import Image

from ..psa_core.hosts.comfyui import reports_of
from ..psa_core.report.pictures.note import note_picture, stacked
from ..psa_core.report.report import Report, as_document
from .shared import as_image, in_words, preview, require

_NOTHING = "PSA: nothing to report"


class PSAReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSAReport",
            display_name="PSA Report",
            category="PSA",
            description=(
                "What a patched model's attention did in the last run: density by layer and step, the share of each "
                "pyramid level, why calls stayed dense, and the time spent in attention; of calibrated attention also "
                "the recipe of each layer and head, and the error measured beside the one asked for. As a picture, "
                "which it also shows on itself, and as JSON."
            ),
            search_aliases=["psa statistics", "density heat map", "attention time", "level shares", "dense or sparse"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that comes out of PSA Attention Patch."),
                io.AnyType.Input(
                    "samples",
                    tooltip=(
                        "What the sampler makes, or anything that is made of it: it makes this node run after sampling."
                    ),
                ),
                io.Model.Input(
                    "model_2",
                    optional=True,
                    tooltip="Wan 2.2's second expert, out of its own PSA Attention Patch. The report covers both.",
                ),
            ],
            outputs=[
                io.Image.Output("picture", tooltip="The picture on this node, for Save Image."),
                io.String.Output("report", tooltip="The numbers behind the picture, as JSON."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, samples: Any, model_2: Any = None) -> io.NodeOutput:
        document: dict[str, Any] = {"line": _NOTHING}
        pictures: list[Image.Image] = []
        notes: list[str] = []
        try:
            reports, without = reports_of(model=model, model_2=model_2)
            notes += without
            if reports:
                document = as_document(reports)
                pictures = [_draw(reports)]
        except Exception as error:
            # What was sampled may not have been saved yet.
            notes.append(in_words(error, "PSA Report"))
        if notes:
            document["notes"] = notes
            pictures.append(note_picture("\n".join(notes if pictures else [document["line"], *notes])))
        picture = stacked(pictures)
        return io.NodeOutput(as_image(picture), json.dumps(document, indent=2), ui=preview(picture, cls))


def _draw(reports: list[Report]) -> Image.Image:
    require("matplotlib")
    from ..psa_core.report.pictures.run_report import report_picture

    return report_picture(reports)
