"""Radial Mask and Sparsity Schedule together, beside other nodes, and under samplers with steps of their own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from ..conftest import ComfyUI
from ..graphs import Settings, single_pass, two_segments
from ..hosts.test_composition import counting_override
from ..psa import LEVEL_1_ONLY, MASK_WIDGETS, SCHEDULE_WIDGETS, Widgets, chain, line, lines, psa, psa_default

BOTH: dict[str, Widgets] = {
    "mask": {"mode": "intersect", "dense_layers": 1},
    "schedule": {"warmup": "1", "last_dense": "25%", "curve": "linear"},
}
SETTINGS = Settings(steps=4, cfg=1.0)


@pytest.mark.parametrize("psa_last", [True, False])
def test_another_override_gets_what_stays_dense(comfyui: ComfyUI, tmp_path: Path, psa_last: bool) -> None:
    calls = tmp_path / "calls.json"
    patches = (counting_override(calls), psa(**BOTH))
    alone = comfyui.client.sample(single_pass("wan_t2v", SETTINGS, psa(**BOTH)))
    graph = single_pass("wan_t2v", SETTINGS, chain(*(patches if psa_last else reversed(patches))))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert shown.reasons == {"cross-attention": 8, "warm-up": 2, "last steps": 2, "dense layer": 2}
    assert (shown.sparse, shown.dense) == (2, 14)
    assert sum(json.loads(calls.read_text()).values()) == shown.dense
    assert torch.equal(comfyui.client.latent(result), alone)


def test_the_longer_of_two_warmups_and_the_sum_of_layers(comfyui: ComfyUI) -> None:
    mask = {"dense_timesteps": 2, "last_dense_timesteps": 1, "dense_layers": 1}
    schedule = {"warmup": "1", "last_dense": "3", "dense_layers": "2"}
    graph = single_pass("cogvideox", Settings(steps=8, cfg=1.0), psa(mask=mask, schedule=schedule))

    shown = line(comfyui.client.run(graph), graph)

    # Steps 2, 3 and 4 are left, and of three layers the one between.
    assert shown.reasons == {"warm-up": 6, "last steps": 9, "dense layer": 6}
    assert shown.sparse == 3


def test_mask_that_decides_alone_ignores_the_curve(comfyui: ComfyUI) -> None:
    mask = {"mode": "radial only"}
    alone = comfyui.client.sample(single_pass("wan_t2v", SETTINGS, psa(mask=mask)))
    with_curve = comfyui.client.sample(single_pass("wan_t2v", SETTINGS, psa(mask=mask, schedule={"curve": "cosine"})))

    assert torch.equal(with_curve, alone)


def test_curve_moves_what_meets_the_mask(comfyui: ComfyUI) -> None:
    """Under `intersect` what runs falls with the curve from the first segment to the second."""
    graph = two_segments("wan_t2v", SETTINGS, psa(mask={"mode": "intersect"}, schedule={"curve": "linear"}))

    first, second = lines(comfyui.client.run(graph), graph)

    assert first.density is not None
    assert second.density is not None
    assert second.density < first.density - 0.05


def test_open_sockets_are_as_before(comfyui: ComfyUI) -> None:
    """Neither a schedule that says nothing nor nodes that were connected to the same loader leave a trace."""
    settings = Settings(steps=3)
    before = comfyui.client.sample(single_pass("wan_t2v", settings, psa(warmup_steps=1)))
    silent = comfyui.client.sample(single_pass("wan_t2v", settings, psa(warmup_steps=1, schedule={})))
    other = comfyui.client.sample(single_pass("wan_t2v", settings, psa(warmup_steps=1, **BOTH)))
    after = comfyui.client.sample(single_pass("wan_t2v", settings, psa(warmup_steps=1)))

    assert torch.equal(silent, before)
    assert not torch.equal(other, before)
    assert torch.equal(after, before)


def test_without_a_preset_loader(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa_default())
    (patch,) = graph.nodes_of("PSAAttentionPatch")
    graph[patch]["inputs"]["mask"] = graph.add("PSARadialMask", **(MASK_WIDGETS | {"mode": "intersect"}))
    graph[patch]["inputs"]["schedule"] = graph.add("PSASparsitySchedule", **(SCHEDULE_WIDGETS | {"warmup": "1"}))

    shown = line(comfyui.client.run(graph), graph)

    # The default preset's warm-up is longer than this denoising.
    assert shown.reasons["warm-up"] == 2
    assert shown.sparse == 6


@pytest.mark.parametrize("source", ["mask", "schedule"])
@pytest.mark.parametrize("sampler_name", ["dpmpp_sde", "dpm_2", "heun", "uni_pc", "er_sde"])
def test_samplers_that_ask_for_sigmas_of_their_own(comfyui: ComfyUI, sampler_name: str, source: str) -> None:
    settings = Settings(steps=4, cfg=1.0, sampler_name=sampler_name)
    widgets: dict[str, Widgets] = {
        "mask": {"mask": {"mode": "intersect", "sparsity_type": "dense", "last_dense_timesteps": 1}},
        "schedule": {"schedule": {"last_dense": "1"}},
    }
    counting = single_pass("wan_t2v", settings, psa(**LEVEL_1_ONLY))
    calls = line(comfyui.client.run(counting), counting).sparse
    graph = single_pass("wan_t2v", settings, psa(**LEVEL_1_ONLY, **widgets[source]))

    shown = line(comfyui.client.run(graph), graph)

    reasons = Counter(shown.reasons)
    assert reasons.pop("cross-attention") == calls
    assert set(reasons) == {"last steps"}
    assert shown.sparse + reasons["last steps"] == calls
    # One of four steps. Most ask twice in every step but the last; heun asks for the last one's sigma a step before.
    assert 0.1 <= reasons["last steps"] / calls <= 0.3
