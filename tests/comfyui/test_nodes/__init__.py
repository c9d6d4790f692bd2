"""What only the tests' ComfyUI has: stand-ins for text encoders and VAEs, and what other packs do to a server."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .compiled import TestCompile
from .conditioning import TestImage, TestReference, TestText, TestVace
from .families import FAMILY_NODES
from .latent import TestLatent
from .memory import add_memory_routes
from .model import TestModel
from .neighbours import NEIGHBOURS
from .network import TestForward, TestWeights
from .newer_core import TestH3Layout
from .override import TestOverride
from .own_forwards import OWN_FORWARDS
from .probe import TestProbe
from .schedulers import add_odd_schedulers
from .several_gpus import SEVERAL_GPUS
from .tensors import TestOddValues
from .validate import add_validate_route


class TestExtension(ComfyExtension):
    """Registers the test nodes, routes, and schedulers that no test asks for."""

    async def on_load(self) -> None:
        """Before the server starts."""
        add_validate_route()
        add_memory_routes()
        add_odd_schedulers()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of this pack; their ids start with PSATest."""
        return [
            *(TestText, TestImage, TestVace, TestReference),
            *(TestCompile, TestLatent, TestModel, TestOverride, TestWeights, TestForward),
            *NEIGHBOURS,
            *OWN_FORWARDS,
            *FAMILY_NODES,
            *SEVERAL_GPUS,
            *(TestOddValues, TestProbe, TestH3Layout),
        ]


async def comfy_entrypoint() -> TestExtension:
    """ComfyUI's way in."""
    return TestExtension()
