"""What several nodes need: sockets, widgets, lines and pictures on nodes, and a word on missing packages."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer

from ..psa_core.settings.errors import ConfigError, errors_at

log = logging.getLogger(__name__)

Preset = io.Custom("PSA_PRESET")
Schedule = io.Custom("PSA_SCHEDULE")
Mask = io.Custom("PSA_MASK")
Calibration = io.Custom("PSA_CALIBRATION")

AMOUNT = "a number such as 15, or a share of all steps such as 25%"

_PACK = Path(__file__).resolve().parents[1]


def amount(key: str, default: str, tooltip: str, **options: Any) -> io.Input:
    """A text for an amount of steps, which graphs of 0.1.0 hold as a number; an INT may be linked to it."""
    return io.MultiType.Input(io.String.Input(key, default=default, tooltip=tooltip, **options), types=[io.Int])


def share(key: str, default: float, tooltip: str, least: float = 0.0, **options: Any) -> io.Input:
    """A number up to 1, in steps of half a percent; values between them stay as they are."""
    return io.Float.Input(key, default=default, min=least, max=1.0, step=0.005, round=False, tooltip=tooltip, **options)


def check_before_run(node: str, kind: Callable[..., Any], **settings: Any) -> bool:
    """See that settings of ``kind`` are allowed, in a node's ``validate_inputs``: before anything runs.

    Args:
        node: what errors call it.
        settings: None for those that come from other nodes, of which nothing is known until then.

    Raises:
        ConfigError: they are not. Raised, because ComfyUI shows a text that is returned once for every argument of
            ``validate_inputs``.
    """
    with errors_at(node):
        kind(**{key: value for key, value in settings.items() if value is not None})
    return True


def say(node_id: str, line: str, **more: Any) -> None:
    """Show lines on a node, in place of those before, in the browser that queued the prompt; "" shows none.

    They stay until the node is told others: ``web/status_line.js`` lists the node classes that have room for them.

    Args:
        node_id: as in ``io.Hidden.unique_id``.
        more: for the front end, to be read beside the line.
    """
    server = PromptServer.instance
    # Without a client nobody's graph is known to have the node.
    if server.client_id is not None:
        server.send_sync(
            "psa.line", {"node": node_id, "line": line, "graph": _graph_id(server), **more}, server.client_id
        )


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


def in_words(error: Exception, node: str) -> str:
    """What a node that only reports says in place of its report; a prompt's results are worth more than that.

    Args:
        node: its name.
    """
    known = isinstance(error, ConfigError | MissingPackageError)
    log.log(logging.WARNING if known else logging.ERROR, "%s: %s", node, error, exc_info=None if known else error)
    return f"{node}: {error}" if known else f"{node}: {type(error).__name__}: {error}"


class MissingPackageError(RuntimeError):
    """A package that ComfyUI does not bring is not installed; the message names the command that installs it."""


def require(*modules: str) -> None:
    """See that modules of packages that ComfyUI does not bring can be imported.

    Raises:
        MissingPackageError: some cannot.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingPackageError(
            f"{' and '.join(missing)} cannot be imported: run `pip install -r requirements.txt` with ComfyUI's Python "
            f"in {_PACK}, and restart ComfyUI"
        )
