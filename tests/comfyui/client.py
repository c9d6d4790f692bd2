"""Queues graphs on a ComfyUI server the way its front end does, and reads what came of them."""

from __future__ import annotations

import io
import json
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load

from .graphs import Graph
from .websocket import WebSocket

BINARY_TEXT_EVENT = 3
PROMPT_TIMEOUT = 60.0
SHORTEST_WAIT = 0.001


class PromptRejectedError(RuntimeError):
    """The server refused the graph; `node_errors` maps node ids to what is wrong with each."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(json.dumps(body, indent=1))
        self.node_errors: dict[str, Any] = body.get("node_errors", {})


class PromptFailedError(RuntimeError):
    """A node raised while the graph ran; `error` is ComfyUI's execution_error message."""

    def __init__(self, error: dict[str, Any]) -> None:
        trace = "".join(error.get("traceback", []))
        super().__init__(f"node {error.get('node_id')}: {error.get('exception_message')}\n{trace}")
        self.error = error


@dataclass
class PromptResult:
    """What one run of a graph left behind."""

    prompt_id: str
    outputs: dict[str, Any] = field(default_factory=dict)
    """UI outputs by node id."""
    error: dict[str, Any] | None = None
    """The execution_error message, if a node raised."""
    cached: list[str] = field(default_factory=list)
    """Ids of the nodes that were answered from the cache."""
    progress_texts: list[tuple[str, str]] = field(default_factory=list)
    """Every text that ComfyUI sent onto a node during the run, in order, as (node id, text)."""
    said: list[tuple[str, str]] = field(default_factory=list)
    """Every line that the pack showed on a node during the run, in order, as (node id, line)."""

    @property
    def texts(self) -> dict[str, str]:
        """The last progress text of each node."""
        return dict(self.progress_texts)

    @property
    def lines(self) -> dict[str, str]:
        """What the pack's nodes show after the run."""
        return dict(self.said)


class ComfyClient:
    """One client of one server. Not for use by several threads."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client_id = uuid.uuid4().hex
        # Requests go to this machine: a proxy from the environment must not see them.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._websocket = WebSocket(address, f"/ws?clientId={self._client_id}")

    def run(self, graph: Graph, timeout: float = PROMPT_TIMEOUT, check: bool = True) -> PromptResult:
        """Queue a graph and wait for its end. A node that raises is an exception unless `check` is off."""
        prompt_id = self.post("/prompt", {"prompt": graph, "client_id": self._client_id})["prompt_id"]
        result = PromptResult(prompt_id)
        try:
            self._listen(result, timeout)
        except TimeoutError:
            # The next prompt must not wait behind this one.
            self.post("/interrupt", {})
            raise TimeoutError(f"prompt {prompt_id} did not end in {timeout:.0f} s") from None
        result.outputs = self.get_json(f"/history/{prompt_id}")[prompt_id]["outputs"]
        if check and result.error:
            raise PromptFailedError(result.error)
        return result

    def latent(self, result: PromptResult) -> torch.Tensor:
        """The tensor written by the graph's last SaveLatent."""
        saved = [output["latents"][-1] for output in result.outputs.values() if "latents" in output]
        return load(self._get(f"/view?{urllib.parse.urlencode(saved[-1])}"))["latent_tensor"]

    def frames(self, result: PromptResult, node: str) -> np.ndarray:
        """The images that a node saved, ``[frames, height, width, 3]`` from 0 to 1."""
        files = [self._get(f"/view?{urllib.parse.urlencode(saved)}") for saved in result.outputs[node]["images"]]
        pictures = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
        return np.stack([np.asarray(picture, np.float32) / 255 for picture in pictures])

    def sample(self, graph: Graph, timeout: float = PROMPT_TIMEOUT) -> torch.Tensor:
        """Run a graph and return its latent."""
        return self.latent(self.run(graph, timeout))

    def object_info(self, class_type: str) -> dict[str, Any] | None:
        """What the front end is told about a node class; None if the server does not know it."""
        info: dict[str, Any] | None = self.get_json(f"/object_info/{class_type}").get(class_type)
        return info

    def wait_for_history(self, before: set[str], timeout: float) -> dict[str, Any]:
        """The history of the prompt that ends first of those that are not in ``before``; others may have queued it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for prompt_id, entry in self.get_json("/history").items():
                if prompt_id not in before and entry["status"]["completed"] is not None:
                    done: dict[str, Any] = entry
                    return done
            time.sleep(0.5)
        raise TimeoutError(f"no prompt ended in {timeout:.0f} s")

    def forget(self) -> None:
        """Unload models and drop cached node outputs before the next prompt."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def close(self) -> None:
        """Close the event stream."""
        self._websocket.close()

    def _listen(self, result: PromptResult, timeout: float) -> None:
        """Follow the event stream through this prompt; other prompts' events, if any are left over, are dropped."""
        deadline = time.monotonic() + timeout
        running = False
        while True:
            message = self._websocket.receive(max(deadline - time.monotonic(), SHORTEST_WAIT))
            if isinstance(message, bytes):
                if running and struct.unpack(">I", message[:4])[0] == BINARY_TEXT_EVENT:
                    result.progress_texts.append(_progress_text(message[4:]))
                continue
            event = json.loads(message)
            data = event.get("data", {})
            if running and event["type"] == "psa.line":
                result.said.append((data["node"], data["line"]))
            if data.get("prompt_id") != result.prompt_id:
                continue
            running = True
            if event["type"] == "execution_cached":
                result.cached = data["nodes"]
            elif event["type"] in ("execution_error", "execution_interrupted"):
                result.error = data
            elif event["type"] == "executing" and data["node"] is None:
                # Sent after the history entry is written, unlike execution_success.
                return

    def _get(self, path: str) -> bytes:
        with self._opener.open(f"http://{self.address}{path}", timeout=30) as response:
            content: bytes = response.read()
        return content

    def get_json(self, path: str) -> dict[str, Any]:
        """The server's answer to a GET."""
        parsed: dict[str, Any] = json.loads(self._get(path))
        return parsed

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to a POST; a graph that it refuses is an exception."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self.address}{path}", json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=30) as response:
                parsed: dict[str, Any] = json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            if error.code == 400:
                raise PromptRejectedError(json.loads(error.read())) from None
            raise
        return parsed


def _progress_text(payload: bytes) -> tuple[str, str]:
    """Length of the node id, node id, text: the layout that PromptServer.send_progress_text packs."""
    text_start = 4 + struct.unpack(">I", payload[:4])[0]
    return payload[4:text_start].decode(), payload[text_start:].decode()
