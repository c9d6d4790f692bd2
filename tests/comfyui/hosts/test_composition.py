"""The patch beside other nodes that work on a model, in either order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ..conftest import ComfyUI
from ..graphs import Graph, Link, Patch, Settings, single_pass
from ..psa import LEVEL_1_ONLY, chain, line, psa, relative_error


def easy_cache(graph: Graph, model: Link) -> Link:
    return graph.add("EasyCache", model=model, reuse_threshold=0.9, start_percent=0.0, end_percent=1.0, verbose=False)


def context_windows(graph: Graph, model: Link) -> Link:
    """Windows of 17 and, at the end of the clip, fewer video frames."""
    return graph.add(
        "WanContextWindowsManual",
        model=model,
        context_length=17,
        context_overlap=5,
        context_schedule="standard_static",
        context_stride=1,
        closed_loop=False,
        fuse_method="pyramid",
        freenoise=False,
        retain_first_frame=False,
        split_conds_to_windows=False,
    )


def pytorch_attention(graph: Graph, model: Link) -> Link:
    """A core node that overwrites whatever override it finds."""
    return graph.add("ModelAttentionBackend", model=model, attention="pytorch attention")


def counting_override(path: Path) -> Patch:
    return lambda graph, model: graph.add("PSATestOverride", model=model, path=str(path), previous="overwrite")


def both_orders(other: Patch, **numbers: float) -> list[Patch]:
    return [chain(other, psa(**numbers)), chain(psa(**numbers), other)]


@pytest.mark.parametrize("psa_last", [True, False])
def test_another_override_gets_what_stays_dense(comfyui: ComfyUI, tmp_path: Path, psa_last: bool) -> None:
    counts = tmp_path / "counts.json"
    patches = (counting_override(counts), psa(warmup_steps=1))
    alone = comfyui.client.sample(single_pass("wan_t2v", patch=psa(warmup_steps=1)))
    graph = single_pass("wan_t2v", patch=chain(*(patches if psa_last else reversed(patches))))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert (shown.sparse, shown.reasons) == (2, {"cross-attention": 4, "warm-up": 2})
    assert sum(json.loads(counts.read_text()).values()) == shown.dense
    assert torch.equal(comfyui.client.latent(result), alone)


@pytest.mark.parametrize("psa_last", [True, False])
@pytest.mark.parametrize("host", ["wan_t2v", "cogvideox"])
def test_attention_backend_node(comfyui: ComfyUI, host: str, psa_last: bool) -> None:
    graph = single_pass(host, patch=both_orders(pytorch_attention, **LEVEL_1_ONLY)[not psa_last])

    result = comfyui.client.run(graph)

    assert line(result, graph).sparse > 0
    assert relative_error(comfyui.client.latent(result), comfyui.client.sample(single_pass(host))) < 1e-4


@pytest.mark.parametrize("psa_last", [True, False])
def test_easy_cache(comfyui: ComfyUI, psa_last: bool) -> None:
    settings = Settings(steps=8)
    cached = comfyui.client.sample(single_pass("wan_t2v", settings, easy_cache))
    graph = single_pass("wan_t2v", settings, both_orders(easy_cache, **LEVEL_1_ONLY)[not psa_last])

    result = comfyui.client.run(graph)

    # Steps that the cache answers make no attention call; what it computes is computed sparse.
    assert 0 < line(result, graph).sparse < 2 * settings.steps
    assert relative_error(comfyui.client.latent(result), cached) < 1e-3


@pytest.mark.parametrize("psa_last", [True, False])
def test_context_windows(comfyui: ComfyUI, psa_last: bool) -> None:
    settings = Settings(latent=(9, 16, 24))
    windowed = comfyui.client.sample(single_pass("wan_t2v", settings, context_windows))
    graph = single_pass("wan_t2v", settings, both_orders(context_windows, **LEVEL_1_ONLY)[not psa_last])

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert shown.sparse > 4
    assert set(shown.reasons) == {"cross-attention"}
    assert relative_error(comfyui.client.latent(result), windowed) < 1e-4


@pytest.mark.parametrize("sampler_name", ["dpmpp_sde", "dpm_2", "heun", "uni_pc", "er_sde"])
def test_samplers_that_ask_for_sigmas_of_their_own(comfyui: ComfyUI, sampler_name: str) -> None:
    settings = Settings(steps=4, cfg=1.0, sampler_name=sampler_name)
    dense = comfyui.client.sample(single_pass("wan_t2v", settings))
    counting = single_pass("wan_t2v", settings, psa(**LEVEL_1_ONLY))
    calls = line(comfyui.client.run(counting), counting).sparse
    graph = single_pass("wan_t2v", settings, psa(warmup_steps=2, **LEVEL_1_ONLY))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert relative_error(comfyui.client.latent(result), dense) < 1e-3
    # Two of four steps, whatever number of calls the sampler makes in a step.
    assert shown.reasons["warm-up"] + shown.sparse == calls
    assert 0.4 <= shown.reasons["warm-up"] / calls <= 0.6
