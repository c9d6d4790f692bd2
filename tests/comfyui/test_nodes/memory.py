"""``GET /psa_test/cached``, ``kept`` and ``trim``: what caches and runs hold, and memory that malloc may give back."""

from __future__ import annotations

import ctypes
import gc
import sys

from aiohttp import web
from server import PromptServer


def add_memory_routes() -> None:
    """Register the routes with ComfyUI's server."""

    @PromptServer.instance.routes.get("/psa_test/cached")
    async def cached(request: web.Request) -> web.Response:
        # ComfyUI names a pack's modules by its folder.
        (module,) = (module for name, module in sys.modules.items() if name.endswith("psa_core.ops.device_cache"))
        return web.json_response({"entries": sum(cache.cache_info().currsize for cache in module._CACHES)})

    @PromptServer.instance.routes.get("/psa_test/kept")
    async def kept(request: web.Request) -> web.Response:
        gc.collect()
        found = [x for x in gc.get_objects() if type(x).__name__ == "Kept"]
        return web.json_response(
            {"maps": sum(len(x._maps.maps) for x in found), "chosen": sum(len(x._choices) for x in found)}
        )

    @PromptServer.instance.routes.get("/psa_test/trim")
    async def trim(request: web.Request) -> web.Response:
        gc.collect()
        # glibc's: what is free and was not given back differs by some per cent from run to run.
        return web.json_response({"trimmed": ctypes.CDLL("libc.so.6").malloc_trim(0)})
