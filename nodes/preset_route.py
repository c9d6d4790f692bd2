"""``GET /psa/presets``: what the front end fills the Preset Loader's widgets with."""

from __future__ import annotations

from aiohttp import web
from server import PromptServer

from .preset_loader import families, widgets_from_config


def add_preset_route() -> None:
    """Register the route with ComfyUI's server. A preset file that has changed is read anew."""

    @PromptServer.instance.routes.get("/psa/presets")
    async def presets(request: web.Request) -> web.Response:
        known, errors = families()
        models = {
            family.name: {
                "default": family.default,
                "presets": {name: widgets_from_config(config) for name, config in family.presets.items()},
            }
            for family in known.values()
        }
        return web.json_response({"models": models, "errors": [str(error) for error in errors]})
