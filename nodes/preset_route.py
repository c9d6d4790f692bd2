"""``GET /psa/presets``: what the front end fills widgets with."""

from __future__ import annotations

from aiohttp import web
from server import PromptServer

from .preset_loader import families, names_of, widgets_from_config
from .radial_mask import length_defaults


def add_preset_route() -> None:
    """Register the route with ComfyUI's server. A preset file that has changed is read anew."""

    @PromptServer.instance.routes.get("/psa/presets")
    async def presets(request: web.Request) -> web.Response:
        known, errors = families()
        models = {
            family.name: {
                "default": family.default,
                "presets": {name: widgets_from_config(family.presets[name]) for name in names_of(family)},
            }
            for family in known.values()
        }
        problems = [str(error) for error in errors]
        return web.json_response({"models": models, "radial": length_defaults(), "errors": problems})
