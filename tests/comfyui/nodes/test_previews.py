"""What the server tells the front end to draw on Radial Mask and Sparsity Schedule, and whom it turns away."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import numpy as np
import pytest

from psa_core import RadialMask, Schedule
from psa_core.masks.static import static_levels
from psa_core.settings.at_step import step_densities
from psa_core.settings.mask_ratios import mask_ratios_from_bounds

from ..conftest import ComfyUI
from ..psa import ADDED_SCHEDULE_WIDGETS, MASK_WIDGETS, SCHEDULE_WIDGETS

SCHEDULE = SCHEDULE_WIDGETS | ADDED_SCHEDULE_WIDGETS
KINDS = {"radial_mask": MASK_WIDGETS, "schedule": SCHEDULE}
ODD: list[Any] = [
    None,
    -1,
    0,
    1,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    10**30,
    True,
    "",
    "x",
    "9" * 400,
    [],
    [[1]],
    {},
]


def ask(comfyui: ComfyUI, kind: str, body: bytes | dict[str, Any]) -> tuple[int, Any]:
    """Status and answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{comfyui.server.address}/psa/preview/{kind}", data)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def drawn(comfyui: ComfyUI, kind: str, **widgets: Any) -> dict[str, Any]:
    status, answer = ask(comfyui, kind, KINDS[kind] | widgets)
    assert status == 200
    result: dict[str, Any] = answer
    return result


@pytest.mark.parametrize(
    "widgets", [{}, {"decay_factor": 0.3, "mode": "coarsen"}, {"scene_boundaries": "0, 33, 49"}, {"block_size": 32}]
)
def test_mask_is_that_of_a_run(comfyui: ComfyUI, widgets: dict[str, Any]) -> None:
    settings = {key: value for key, value in MASK_WIDGETS.items() if hasattr(RadialMask, key)} | widgets
    mask = RadialMask(**settings, frames_per_token=4)
    levels = static_levels(mask, (13, 15, 26), 0, 128, 128)[0, 0].numpy()

    answer = drawn(comfyui, "radial_mask", **widgets, preview_width=416, preview_height=240, preview_frames=49)

    assert (answer["grid"], answer["text_length"], answer["blocks"]) == ([13, 15, 26], 0, len(levels))
    for level, share in answer["shares"].items():
        pixels = np.frombuffer(base64.b64decode(share), np.uint8).reshape(levels.shape)
        assert ((levels == int(level)) == (pixels == 255)).all()
    assert set(map(int, answer["shares"])) == set(levels.flatten().tolist())


@pytest.mark.parametrize("curve", ["preset", "constant", "linear", "cosine", "timestep"])
def test_schedule_is_that_of_a_run(comfyui: ComfyUI, curve: str) -> None:
    start, end = (
        mask_ratios_from_bounds({level: SCHEDULE[f"{side}_{level}"] for level in (1, 2, 4, 8)})
        for side in ("start", "end")
    )
    ratios = {} if curve == "preset" else {"start": start, "end": end}
    schedule = Schedule(warmup="20%", last_dense=2, curve="constant" if curve == "preset" else curve, **ratios)

    answer = drawn(comfyui, "schedule", curve=curve, warmup="20%", last_dense="2", preview_steps=20)

    assert answer["densities"] == step_densities(schedule, 20)


def test_steps_that_are_given_are_those_that_are_drawn(comfyui: ComfyUI) -> None:
    assert len(drawn(comfyui, "schedule", steps=7)["densities"]) == 7
    assert len(drawn(comfyui, "schedule")["densities"]) == SCHEDULE["preview_steps"]


@pytest.mark.parametrize(
    ("kind", "widgets", "line"),
    [
        ("radial_mask", {"decay_factor": -1}, "decay_factor = -1: must be a number above 0"),
        ("radial_mask", {"scene_boundaries": "5, 9"}, "scene_boundaries = '5, 9': must begin with 0"),
        ("radial_mask", {"preview_frames": 4097}, "preview size = [832, 480, 4097]: is too large to draw"),
        ("schedule", {"warmup": "soon"}, "warmup = 'soon': must be a number of steps"),
        ("schedule", {"curve": "linear", "end_4": 0.01}, "end_4 = 0.01: must not be below"),
        ("schedule", {"steps": 1001}, "steps = 1001: cannot be drawn"),
    ],
)
def test_bad_settings_are_answered_with_a_line(comfyui: ComfyUI, kind: str, widgets: dict[str, Any], line: str) -> None:
    answer = drawn(comfyui, kind, **widgets)

    assert list(answer) == ["error"]
    assert answer["error"].startswith(line)
    assert "\n" not in answer["error"]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_sent_the_server_does_not_fail(comfyui: ComfyUI, kind: str) -> None:
    random = Random(0)
    for _ in range(100):
        body = KINDS[kind] | {name: random.choice(ODD) for name in random.sample(list(KINDS[kind]), 2)}
        status, answer = ask(comfyui, kind, body)
        assert status in (200, 400), (body, answer)
    for odd in [b"", b"{", b"[]", b"null", b"[" * 9000, b"\xff", *(json.dumps(value).encode() for value in ODD)]:
        status, _ = ask(comfyui, kind, odd)
        assert status == 400, odd


@pytest.mark.parametrize("kind", KINDS)
def test_long_requests_are_turned_away(comfyui: ComfyUI, kind: str) -> None:
    widgets = KINDS[kind] | {"scene_boundaries": "0" * 20_000}

    assert ask(comfyui, kind, widgets)[0] == 413


def test_the_largest_pictures_leave_the_server_responsive(comfyui: ComfyUI) -> None:
    size = {"preview_width": 1024, "preview_height": 1024, "preview_frames": 481}
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(drawn, comfyui, "radial_mask", decay_factor=0.2 + i, **size) for i in range(4)]
        while not all(answer.done() for answer in asked):
            # Times out after seconds.
            comfyui.client.get_json("/system_stats")
        assert all("shares" in answer.result() for answer in asked)
