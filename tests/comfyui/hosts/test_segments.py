"""Warm-up counts the steps of the whole denoising, also where KSamplerAdvanced samples a part of it."""

from __future__ import annotations

import pytest
import torch

from ..conftest import ComfyUI
from ..graphs import Settings, single_pass, two_segments
from ..psa import LEVEL_1_ONLY, line, lines, psa, relative_error

SCHEDULERS = (
    *("simple", "normal", "sgm_uniform", "karras", "exponential"),
    *("ddim_uniform", "beta", "linear_quadratic", "kl_optimal"),
)
STEPS = 6
LAYERS = 2


def settings(scheduler: str = "simple", sampler_name: str = "euler") -> Settings:
    return Settings(steps=STEPS, cfg=1.0, scheduler=scheduler, sampler_name=sampler_name)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("switch_step", "warmup"), [(2, 3), (3, 1), (5, 6)])
def test_segments_of_every_scheduler(comfyui: ComfyUI, scheduler: str, switch_step: int, warmup: int) -> None:
    graph = two_segments("wan_t2v", settings(scheduler), psa(warmup_steps=warmup), switch_step=switch_step)

    first, second = lines(comfyui.client.run(graph), graph)

    dense_first = min(warmup, switch_step)
    assert first.reasons["warm-up"] == LAYERS * dense_first
    assert second.reasons["warm-up"] == LAYERS * (warmup - dense_first)
    assert first.sparse + second.sparse == LAYERS * (STEPS - warmup)


@pytest.mark.parametrize("sampler_name", ["dpm_2", "uni_pc"])
def test_samplers_that_drop_a_sigma(comfyui: ComfyUI, sampler_name: str) -> None:
    graph = two_segments("wan_t2v", settings("simple", sampler_name), psa(warmup_steps=2), switch_step=3)

    _, second = lines(comfyui.client.run(graph), graph)

    assert second.reasons["warm-up"] == 0


def test_two_experts_count_as_one_denoising(comfyui: ComfyUI) -> None:
    graph = two_segments(
        "wan22_i2v",
        settings(),
        psa(warmup_steps=3),
        low_noise_host_name="wan22_i2v_low_noise",
        low_noise_patch=psa(warmup_steps=3),
        switch_step=2,
    )

    high, low = lines(comfyui.client.run(graph), graph)

    assert (high.sparse, high.reasons["warm-up"]) == (0, 2 * LAYERS)
    assert (low.sparse, low.reasons["warm-up"]) == (3 * LAYERS, 1 * LAYERS)


def test_only_the_low_noise_expert_patched(comfyui: ComfyUI) -> None:
    graph = two_segments(
        "wan_t2v",
        settings(),
        low_noise_host_name="wan_t2v_low_noise",
        low_noise_patch=psa(warmup_steps=3),
        switch_step=2,
    )

    assert line(comfyui.client.run(graph), graph).reasons["warm-up"] == 1 * LAYERS


def test_level_1_alone_gives_the_dense_latent(comfyui: ComfyUI) -> None:
    dense = comfyui.client.sample(two_segments("wan_t2v", settings()))
    patched = comfyui.client.sample(two_segments("wan_t2v", settings(), psa(**LEVEL_1_ONLY)))

    assert relative_error(patched, dense) < 1e-4


def test_segments_give_the_picture_of_one_pass(comfyui: ComfyUI) -> None:
    patch = psa(warmup_steps=3)
    whole = comfyui.client.sample(single_pass("wan_t2v", settings(), patch))
    parts = comfyui.client.sample(two_segments("wan_t2v", settings(), patch))

    assert torch.isfinite(parts).all()
    assert relative_error(parts, whole) < 1e-3


def test_denoising_from_part_way_counts_from_the_start(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", settings(), psa(warmup_steps=STEPS + 2))
    (sampler,) = graph.nodes_of("KSampler")
    graph[sampler]["inputs"]["denoise"] = 0.5

    # Half of 12 steps: the first of them is step 6 of the schedule, and the warm-up covers two more.
    assert line(comfyui.client.run(graph), graph).reasons["warm-up"] == 2 * LAYERS
