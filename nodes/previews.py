"""What the front end draws on Radial Mask and Sparsity Schedule while their widgets change, before anything runs.

The numbers come from the code that a run uses. Requests may be anybody's: they are short, and computed one at a time.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..psa_core.masks.preview import mask_preview
from ..psa_core.settings.at_step import step_densities
from ..psa_core.settings.errors import ConfigError
from .radial_mask import mask_from_widgets
from .sparsity_schedule import schedule_from_widgets

_MOST_BYTES, _MOST_STEPS = 16384, 1000

Answer = dict[str, Any]


def radial_mask(widgets: dict[str, Any]) -> Answer:
    """The picture of Radial Mask's widgets.

    Raises:
        ConfigError: they do not describe a mask, or one that is too large.
        KeyError: a widget is missing.
    """
    mask = mask_from_widgets(widgets)
    drawn = mask_preview(mask, *(widgets[f"preview_{side}"] for side in ("width", "height", "frames")))
    return {
        "frames": drawn.frames,
        "grid": drawn.grid,
        "text_length": drawn.text_length,
        "blocks": drawn.blocks,
        "density": drawn.density,
        "shares": {level: base64.b64encode(share.numpy().tobytes()).decode() for level, share in drawn.shares.items()},
    }


def schedule(widgets: dict[str, Any]) -> Answer:
    """The density of every step that Sparsity Schedule's widgets lead to, as in ``step_densities``.

    Raises:
        ConfigError: they do not describe a schedule, or one of too many steps.
        KeyError: a widget is missing.
    """
    steps = widgets["steps"] or widgets["preview_steps"]
    made = schedule_from_widgets(widgets)
    if type(steps) is not int or not 1 <= steps <= _MOST_STEPS:
        raise ConfigError("steps", steps, f"cannot be drawn: 1 to {_MOST_STEPS} can")
    return {"densities": step_densities(made, steps)}


def add_routes(routes: web.RouteTableDef) -> None:
    """Answer the front end's questions."""
    busy = asyncio.Semaphore(1)
    for name, draw in (("radial_mask", radial_mask), ("schedule", schedule)):
        routes.post(f"/psa/preview/{name}")(_handler(draw, busy))


def _handler(draw: Callable[[dict[str, Any]], Answer], busy: asyncio.Semaphore) -> Any:
    async def handle(request: web.Request) -> web.Response:
        length = request.content_length
        if length is None or length > _MOST_BYTES:
            raise web.HTTPRequestEntityTooLarge(_MOST_BYTES, length or 0)
        try:
            widgets = json.loads(await request.text())
            async with busy:
                return web.json_response(await asyncio.to_thread(draw, widgets))
        except ConfigError as error:
            return web.json_response({"error": str(error)})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise web.HTTPBadRequest(text=f"not the values of the node's widgets: {error!r}") from None

    return handle
