"""Nodes that only the tests' ComfyUI has: stand-ins for text encoders and VAEs, and a foreign attention override."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .conditioning import TestEmbeddings, TestImage, TestReference, TestText, TestVace
from .latent import TestLatent
from .model import TestModel
from .override import TestOverride


class TestExtension(ComfyExtension):
    """Registers the test nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of this pack; their ids start with PSATest."""
        return [
            *(TestText, TestEmbeddings, TestImage, TestVace, TestReference),
            *(TestLatent, TestModel, TestOverride),
        ]


async def comfy_entrypoint() -> TestExtension:
    """ComfyUI's way in."""
    return TestExtension()
