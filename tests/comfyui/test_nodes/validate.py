"""``POST /psa_test/validate``: what ComfyUI has against a graph, without running it."""

from __future__ import annotations

import execution
from aiohttp import web
from server import PromptServer


def add_validate_route() -> None:
    """Register the route with ComfyUI's server."""

    @PromptServer.instance.routes.post("/psa_test/validate")
    async def validate(request: web.Request) -> web.Response:
        valid, error, outputs, node_errors = await execution.validate_prompt("psa_test", await request.json(), None)
        return web.json_response({"valid": valid, "error": error, "outputs": outputs, "node_errors": node_errors})
