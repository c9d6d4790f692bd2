"""Tiny Video Prompt: a prompt for the tiny model, which needs no text encoder."""

from __future__ import annotations

from comfy_api.latest import io

from ..psa_core.models.tiny_video.vocabulary import COLOURS, GROUNDS, MOTIONS, PATTERNS, SHAPES, embed, read_prompt
from ..psa_core.settings.errors import ConfigError, errors_at


class PSATinyVideoPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSATinyVideoPrompt",
            display_name="Tiny Video Prompt",
            category="PSA",
            description=(
                "A prompt for the Tiny Video Model, in the few words that it knows: one or two shapes, each with a "
                "colour and a motion, over a background. Leave it empty for the negative prompt."
            ),
            search_aliases=["psa demo prompt", "tiny text encode", "tiny video text", "sparse"],
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    default="a red circle moving left over gray stripes",
                    tooltip=_vocabulary(),
                )
            ],
            outputs=[io.Conditioning.Output(tooltip="For a sampler's positive or negative input.")],
        )

    @classmethod
    def validate_inputs(cls, text: str | None) -> bool | str:
        """Refuse unknown words before anything runs. A text from another node is None until then."""
        try:
            read_prompt(text or "")
        except ConfigError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        with errors_at("Tiny Video Prompt"):
            words = read_prompt(text)
        return io.NodeOutput([[embed(words)[None], {}]])


def _vocabulary() -> str:
    kinds = {
        "Colours": COLOURS,
        "Shapes": SHAPES,
        "Motions": MOTIONS,
        "Patterns": PATTERNS,
        "Backgrounds": GROUNDS,
    }
    listed = [f"{kind}: {', '.join(words)}." for kind, words in kinds.items()]
    return " ".join([*listed, '"and" begins a second object. Empty: the negative prompt.'])
