"""A server's memory over hundreds of mixed prompts: with the pack it grows as it does without."""

from __future__ import annotations

import random
import statistics
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
import torch

from ..client import ComfyClient
from ..conftest import ComfyUI
from ..graphs import Patch, Settings, single_pass
from ..psa import psa
from ..server import HERE, ComfyServer

SETTLED, PROMPTS, RUNS = 50, 400, 3
GRIDS = ((5, 16, 24), (3, 12, 16), (4, 10, 14), (2, 16, 16))
ALLOWED = 0.005


def mixed(draw: random.Random, patched: bool) -> tuple[str, Settings, Patch | None]:
    """A model, a size, steps and guidance; and every third time none of the pack, also where there is one."""
    host = draw.choice(["wan_t2v", "wan22_ti2v", "cogvideox"])
    settings = Settings(
        draw.choice(GRIDS), steps=draw.choice([2, 3]), cfg=draw.choice([1.0, 5.0]), seed=draw.randrange(9)
    )
    patch = psa(warmup_steps=draw.randrange(2), mask={} if draw.random() < 0.3 else None)
    return host, settings, patch if draw.random() < 2 / 3 and patched else None


def held(server: ComfyServer, client: ComfyClient) -> int:
    """Memory in use, without what malloc holds for later."""
    client.get_json("/psa_test/trim")
    return server.resident_bytes()


def growth(server: ComfyServer, seed: int, patched: bool) -> float:
    """By how much of itself the process grows from the prompt when it has settled to the last."""
    draw, settled = random.Random(seed), 0
    server.start()
    try:
        with closing(ComfyClient(server.address)) as client:
            for number in range(PROMPTS):
                if number == SETTLED:
                    settled = held(server, client)
                client.run(single_pass(*mixed(draw, patched)), timeout=300)
                # ComfyUI keeps the graphs of all prompts, and those with the pack have more nodes.
                client.post("/history", {"clear": True})
            return held(server, client) / settled - 1
    finally:
        server.stop()


def test_caches_on_the_device_go_when_comfyui_frees_memory(comfyui: ComfyUI) -> None:
    def cached() -> int:
        return int(comfyui.client.get_json("/psa_test/cached")["entries"])

    patch = psa(warmup_steps=1, mask={})
    before = comfyui.client.sample(single_pass("wan_t2v", patch=patch))
    assert cached() > 0

    # Done between prompts, so that the next one waits for it.
    request = urllib.request.Request(
        f"http://{comfyui.server.address}/free", b'{"unload_models": true}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request):
        pass
    deadline = time.monotonic() + 20
    while cached() and time.monotonic() < deadline:
        time.sleep(0.1)

    assert cached() == 0
    assert torch.equal(comfyui.client.sample(single_pass("wan_t2v", patch=patch)), before)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_grows_no_more_than_without_the_pack(
    comfyui: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    seed = request.config.option.seed
    grown: dict[bool, list[float]] = {True: [], False: []}
    for run in range(RUNS):
        for patched, packs in ((False, {"psa_test_nodes": HERE / "test_nodes"}), (True, None)):
            server = ComfyServer(comfyui.server.installation, tmp_path / f"{run}_{patched}", packs)
            grown[patched].append(growth(server, seed + run, patched))
            with capsys.disabled():
                print(f"run {run}, {'with' if patched else 'without'} the pack: {grown[patched][-1]:+.2%}", flush=True)

    assert statistics.median(grown[True]) <= statistics.median(grown[False]) + ALLOWED
