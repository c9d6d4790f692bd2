"""``GET /psa_test/cached``: how many entries the pack's caches of tensors on a device hold."""

from __future__ import annotations

import sys

from aiohttp import web
from server import PromptServer


def add_cached_route() -> None:
    """Register the route with ComfyUI's server."""

    @PromptServer.instance.routes.get("/psa_test/cached")
    async def cached(request: web.Request) -> web.Response:
        # ComfyUI names a pack's modules by its folder.
        (module,) = (module for name, module in sys.modules.items() if name.endswith("psa_core.ops.device_cache"))
        return web.json_response({"entries": sum(cache.cache_info().currsize for cache in module._CACHES)})
