"""The harness itself: every tiny model samples in an unpatched ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ..client import PromptFailedError, PromptRejectedError
from ..conftest import ComfyUI
from ..graphs import Graph, Link, Settings, single_pass, two_segments
from ..tiny_models import HOSTS


@pytest.mark.parametrize("host", HOSTS)
def test_model_samples_finite_latents_repeatably(comfyui: ComfyUI, host: str) -> None:
    first = comfyui.client.sample(single_pass(host))
    again = comfyui.client.sample(single_pass(host))
    other_seed = comfyui.client.sample(single_pass(host, Settings(seed=1)))

    assert first.shape == (1, HOSTS[host].channels, *HOSTS[host].latent)
    assert torch.isfinite(first).all()
    assert torch.equal(first, again)
    assert not torch.allclose(first, other_seed)


def test_checkpoints_have_every_parameter_and_no_other(comfyui: ComfyUI) -> None:
    comfyui.client.forget()
    before = len(comfyui.server.log_text())
    for host in HOSTS:
        comfyui.client.run(single_pass(host))

    complaints = ("unet missing", "unet unexpected", "left over keys")
    said = comfyui.server.log_text()[before:].splitlines()
    assert not [line for line in said if any(text in line for text in complaints)]


@pytest.mark.parametrize("host", HOSTS)
def test_odd_latent_and_prompts_of_different_length(comfyui: ComfyUI, host: str) -> None:
    settings = Settings(latent=(3, 9, 13), positive_tokens=20, negative_tokens=7, batch_size=2)

    latent = comfyui.client.sample(single_pass(host, settings))

    assert latent.shape == (2, HOSTS[host].channels, 3, 9, 13)
    assert torch.isfinite(latent).all()


@pytest.mark.parametrize("host", HOSTS)
def test_token_grid_matches_what_attention_sees(comfyui: ComfyUI, tmp_path: Path, host: str) -> None:
    settings = Settings(latent=(4, 9, 13), cfg=1.0)
    counts = tmp_path / "counts.json"

    def count(graph: Graph, model: Link) -> Link:
        return graph.add("PSATestOverride", model=model, path=str(counts), previous="overwrite")

    comfyui.client.run(single_pass(host, settings, count))

    frames, rows, columns = HOSTS[host].token_grid(settings.latent)
    text_tokens = HOSTS[host].text_tokens if host.startswith("cogvideox") else 0
    tokens = frames * rows * columns + text_tokens
    dim = 128 if host.startswith("cogvideox") else 256
    assert f"{(1, tokens, dim)} {(1, tokens, dim)}" in json.loads(counts.read_text())


def test_first_frame_of_ti2v_is_kept(comfyui: ComfyUI) -> None:
    latent = comfyui.client.sample(single_pass("wan22_ti2v", Settings(first_frame=True)))
    free = comfyui.client.sample(single_pass("wan22_ti2v"))

    assert torch.isfinite(latent).all()
    assert not torch.allclose(latent[:, :, 0], free[:, :, 0])


def test_two_segments_equal_one_pass(comfyui: ComfyUI) -> None:
    settings = Settings(steps=4)

    whole = comfyui.client.sample(single_pass("wan_t2v", settings))
    split = comfyui.client.sample(two_segments("wan_t2v", settings))
    two_models = comfyui.client.sample(two_segments("wan_t2v", settings, low_noise_host_name="wan_t2v_low_noise"))

    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(two_models).all()
    assert not torch.allclose(two_models, whole)


def test_chained_override_reaches_the_one_before_it(comfyui: ComfyUI, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.json" for name in ("dropped", "kept", "last")}

    def three_overrides(graph: Graph, model: Link) -> Link:
        for name, previous in (("dropped", "overwrite"), ("kept", "overwrite"), ("last", "chain")):
            model = graph.add("PSATestOverride", model=model, path=str(files[name]), previous=previous)
        return model

    comfyui.client.run(single_pass("wan_t2v", patch=three_overrides))

    assert not files["dropped"].exists()
    assert files["kept"].read_text() == files["last"].read_text()


def test_rebuilt_graph_reuses_the_loader_and_repeated_graph_runs_nothing(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v")
    comfyui.client.run(graph)

    rebuilt = single_pass("wan_t2v")
    assert comfyui.client.run(rebuilt).cached == [*rebuilt.nodes_of("UNETLoader"), *rebuilt.nodes_of("PSATestText")]
    assert set(comfyui.client.run(rebuilt).cached) == set(rebuilt)


def test_progress_text_arrives_with_its_node(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v")

    result = comfyui.client.run(graph)

    assert result.texts == {graph.nodes_of("PSATestLatent")[0]: "[1, 16, 5, 16, 24]"}


def test_failing_node_is_reported_with_its_message(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v")
    graph[graph.nodes_of("PSATestText")[0]]["inputs"]["dim"] = 65

    with pytest.raises(PromptFailedError, match="shapes cannot be multiplied") as failed:
        comfyui.client.run(graph)

    assert failed.value.error["node_id"] == graph.nodes_of("KSampler")[0]


def test_wrong_widget_value_is_rejected_with_its_node(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", Settings(sampler_name="no_such_sampler"))

    with pytest.raises(PromptRejectedError) as rejected:
        comfyui.client.run(graph)

    assert list(rejected.value.node_errors) == graph.nodes_of("KSampler")
