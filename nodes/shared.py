"""What several nodes need: the pack's sockets, lines and pictures on nodes, and a word on missing packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer

Preset = io.Custom("PSA_PRESET")
Schedule = io.Custom("PSA_SCHEDULE")
Mask = io.Custom("PSA_MASK")

_PACK = Path(__file__).resolve().parents[1]


def say(node_id: str, line: str) -> None:
    """Show lines on a node, in place of those before, in the browser that queued the prompt; "" shows none.

    They stay until the node is told others: ``web/status_line.js`` lists the node classes that have room for them.

    Args:
        node_id: as of ``io.Hidden.unique_id``.
    """
    server = PromptServer.instance
    # Without a client nobody's graph is known to have the node.
    if server.client_id is not None:
        server.send_sync("psa.line", {"node": node_id, "line": line, "graph": _graph_id(server)}, server.client_id)


def _graph_id(server: PromptServer) -> str | None:
    """The front end's name for the graph that runs; None for prompts that come without one."""
    running, _ = server.prompt_queue.get_current_queue_volatile()
    for _, _, _, extra_data, *_ in running:
        workflow = extra_data.get("extra_pnginfo", {}).get("workflow", {})
        return workflow.get("id")
    return None


def preview(picture: Image.Image, node: type[io.ComfyNode]) -> Any:
    """What makes ComfyUI show a picture on the node that made it."""
    return ui.PreviewImage(as_image(picture), cls=node)


def as_image(picture: Image.Image) -> torch.Tensor:
    """A picture as ComfyUI's IMAGE, ``[1, height, width, 3]`` from 0 to 1."""
    return torch.from_numpy(np.array(picture.convert("RGB")))[None].float() / 255


def require(*modules: str) -> None:
    """See that modules of packages that ComfyUI does not bring can be imported.

    Raises:
        RuntimeError: some cannot; the message names them and the command that installs them.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise RuntimeError(
            f"{' and '.join(missing)} cannot be imported: run `pip install -r requirements.txt` with ComfyUI's Python "
            f"in {_PACK}, and restart ComfyUI"
        )
