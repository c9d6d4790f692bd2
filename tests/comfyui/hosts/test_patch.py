"""PSA Attention Patch on every model: what must not change the picture, and what must."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ..client import PromptFailedError, PromptRejectedError
from ..conftest import ComfyUI
from ..graphs import Graph, Link, Settings, single_pass, with_reference
from ..psa import LEVEL_1_ONLY, PRESET_NUMBERS, line, lines, psa, psa_default, relative_error
from ..tiny_models import HOSTS

MODELS = ["wan_t2v", "wan_i2v", "wan22_ti2v", "wan22_i2v", "wan_vace", "cogvideox", "cogvideox15", "cogvideox15_i2v"]
FAMILIES = {
    "wan_t2v": "Wan2.1_1.3b",
    "wan_i2v": "Wan2.1_1.3b",
    "wan22_i2v": "Wan2.2_A14B",
    "wan22_ti2v": "Wan2.2_5B",
    "wan_vace": "Wan2.1_1.3b",
    "cogvideox": "CogVideo_2b",
    "cogvideox15": "CogVideo1.5_5b",
}


@pytest.mark.parametrize("host", MODELS)
@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings(latent=(3, 9, 13), cfg=1.0), Settings(positive_tokens=20, negative_tokens=7, batch_size=2)],
    ids=["even", "odd_cfg_1", "prompts_of_unequal_length"],
)
def test_level_1_alone_gives_the_dense_latent(comfyui: ComfyUI, host: str, settings: Settings) -> None:
    dense = comfyui.client.sample(single_pass(host, settings))
    graph = single_pass(host, settings, psa(**LEVEL_1_ONLY))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert shown.sparse > 0
    assert set(shown.reasons) <= {"cross-attention"}
    assert shown.density == 1.0
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4


@pytest.mark.parametrize("host", MODELS)
def test_sparse_preset_gives_another_latent_repeatably(comfyui: ComfyUI, host: str) -> None:
    dense = comfyui.client.sample(single_pass(host))
    graph = single_pass(host, patch=psa())

    result = comfyui.client.run(graph)
    again = comfyui.client.sample(single_pass(host, patch=psa()))

    latent = comfyui.client.latent(result)
    shown = line(result, graph)
    assert torch.isfinite(latent).all()
    assert torch.equal(latent, again)
    assert 0.01 < relative_error(latent, dense) < 2.0
    assert shown.density is not None
    assert shown.density < 0.9


def test_counts_calls_and_reaches_the_quota(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", patch=psa(level_1=0.2, level_2=0.4, level_4=0.0, level_8=0.8))

    shown = line(comfyui.client.run(graph), graph)

    # 480 tokens are 15 blocks of 32: 3 at level 1, 3 at level 2, 6 at level 8. 2 layers in 2 steps, cfg in one batch.
    assert shown.density == pytest.approx((3 + 3 / 2 + 6 / 8) / 15, abs=1e-3)
    assert (shown.sparse, shown.reasons) == (4, {"cross-attention": 4})


@pytest.mark.parametrize("reorder", ["Semantic", "Hybrid"])
def test_orders_by_content_reach_the_quota_repeatably(comfyui: ComfyUI, reorder: str) -> None:
    latents = []
    for _ in range(2):
        graph = single_pass("wan_t2v", patch=psa(reorder=reorder, level_1=0.2, level_2=0.4, level_4=0.0, level_8=0.8))
        result = comfyui.client.run(graph)
        assert line(result, graph).density == pytest.approx((3 + 3 / 2 + 6 / 8) / 15, abs=1e-3)
        latents.append(comfyui.client.latent(result))
    assert torch.isfinite(latents[0]).all()
    assert torch.equal(*latents)


def test_removing_and_disabling_the_node_restores(comfyui: ComfyUI) -> None:
    dense = comfyui.client.sample(single_pass("wan_t2v"))
    sparse = comfyui.client.sample(single_pass("wan_t2v", patch=psa()))

    assert not torch.equal(sparse, dense)
    assert torch.equal(comfyui.client.sample(single_pass("wan_t2v")), dense)
    assert torch.equal(comfyui.client.sample(single_pass("wan_t2v", patch=psa(enabled=False))), dense)


def test_parent_stays_dense_beside_its_patched_clone(comfyui: ComfyUI) -> None:
    dense = comfyui.client.sample(single_pass("wan_t2v"))
    graph = single_pass("wan_t2v", patch=psa())
    (sampler,) = graph.nodes_of("KSampler")
    twin = graph.add("KSampler", **{**graph[sampler]["inputs"], "model": [graph.nodes_of("UNETLoader")[0], 0]})
    twin_save, _ = graph.add("SaveLatent", samples=twin, filename_prefix="psa_test/parent")

    result = comfyui.client.run(graph)

    assert line(result, graph).sparse == 4
    of_twin = dataclasses.replace(result, outputs={twin_save: result.outputs[twin_save]})
    assert torch.equal(comfyui.client.latent(of_twin), dense)


def test_patching_twice_replaces(comfyui: ComfyUI) -> None:
    def twice(graph: Graph, model: Link) -> Link:
        return psa()(graph, psa(**LEVEL_1_ONLY)(graph, model))

    once = comfyui.client.sample(single_pass("wan_t2v", patch=psa()))
    graph = single_pass("wan_t2v", patch=twice)

    result = comfyui.client.run(graph)

    assert torch.equal(comfyui.client.latent(result), once)
    assert line(result, graph).sparse == 4


def test_cached_model_samples_again_at_another_resolution(comfyui: ComfyUI) -> None:
    patch = psa(**LEVEL_1_ONLY)
    comfyui.client.run(single_pass("wan_t2v", patch=patch))
    settings = Settings(latent=(3, 10, 14), seed=3)
    graph = single_pass("wan_t2v", settings, patch)

    result = comfyui.client.run(graph)

    assert graph.nodes_of("PSAAttentionPatch")[0] in result.cached
    assert line(result, graph).sparse == 4
    assert relative_error(comfyui.client.latent(result), comfyui.client.sample(single_pass("wan_t2v", settings))) < 1e-4


@pytest.mark.parametrize("host", FAMILIES)
def test_recognises_the_model_and_takes_its_default_preset(comfyui: ComfyUI, host: str) -> None:
    comfyui.client.forget()
    before = len(comfyui.server.log_text())
    graph = single_pass(host, patch=psa_default())

    shown = line(comfyui.client.run(graph), graph)

    assert f"recognised {FAMILIES[host]}, " in comfyui.server.log_text()[before:]
    # Every default preset starts with more warm-up steps than these two.
    assert shown.reasons["warm-up"] > 0
    assert shown.sparse == 0


def test_auto_leaves_a_cpu_model_dense_and_says_so(comfyui: ComfyUI) -> None:
    dense = comfyui.client.sample(single_pass("wan_t2v"))
    graph = single_pass("wan_t2v", patch=psa(backend="auto"))

    result = comfyui.client.run(graph)

    assert torch.equal(comfyui.client.latent(result), dense)
    assert line(result, graph).reasons["the model runs on cpu, not on an NVIDIA or AMD GPU"] == 4


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"backend": "triton"}, r"backend = 'triton': the model runs on cpu.*use backend 'auto'"),
        (
            {"dense_backend": "cudnn"},
            r"dense_backend = 'cudnn': cannot run here \(.*cpu.*\); model runs what the model",
        ),
    ],
)
def test_what_no_cpu_runs_is_an_error_that_says_what_to_change(
    comfyui: ComfyUI, chosen: dict[str, str], said: str
) -> None:
    with pytest.raises(PromptFailedError, match=said):
        comfyui.client.run(single_pass("wan_t2v", patch=psa(**chosen)))


def test_bfloat16_model(comfyui: ComfyUI) -> None:
    def in_bf16(graph: Graph, model: Link) -> Link:
        return graph.add("ModelComputeDtype", model=model, dtype="bf16")

    dense = comfyui.client.sample(single_pass("wan_t2v", patch=in_bf16))
    graph = single_pass("wan_t2v", patch=lambda g, m: psa(**LEVEL_1_ONLY)(g, in_bf16(g, m)))

    result = comfyui.client.run(graph)

    assert line(result, graph).sparse == 4
    assert relative_error(comfyui.client.latent(result), dense) < 5e-2


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_short_clips_stay_dense(comfyui: ComfyUI, backend: str) -> None:
    graph = single_pass("wan_t2v", patch=psa(min_tokens=481, backend=backend))

    assert line(comfyui.client.run(graph), graph).reasons["480 tokens are fewer than min_tokens = 481"] == 4


def test_prompt_as_long_as_the_video_stays_dense(comfyui: ComfyUI) -> None:
    settings = Settings(latent=(2, 8, 8), positive_tokens=32, negative_tokens=32)
    dense = comfyui.client.sample(single_pass("wan_t2v", settings))
    graph = single_pass("wan_t2v", settings, psa())

    result = comfyui.client.run(graph)

    assert torch.equal(comfyui.client.latent(result), dense)
    assert line(result, graph).reasons["video and prompt both have 32 tokens"] == 8


def test_tokens_beyond_grid_and_text_stay_dense(comfyui: ComfyUI) -> None:
    in_context = ("context_latents", (1, 16, 24))
    dense = comfyui.client.sample(with_reference(single_pass("wan_t2v"), *in_context))
    graph = with_reference(single_pass("wan_t2v", patch=psa()), *in_context)

    result = comfyui.client.run(graph)

    assert torch.equal(comfyui.client.latent(result), dense)
    assert line(result, graph).reasons["576 tokens are not the grid 5 x 8 x 12 plus 0 of text"] == 4


def test_widgets_are_what_the_helper_knows(comfyui: ComfyUI) -> None:
    info = comfyui.client.object_info("PSAPresetLoader")

    assert info is not None
    assert [*info["input"]["required"], *info["input"]["optional"]] == list(PRESET_NUMBERS)
    assert list(info["input"]["required"]) == ["model", "preset"]
    assert info["output"] == ["PSA_PRESET"]
    patch = comfyui.client.object_info("PSAAttentionPatch")
    assert patch is not None
    assert (list(patch["input"]["required"]), list(patch["input"]["optional"])) == (
        ["model", "enabled", "backend", "min_tokens"],
        [
            "preset",
            "mask",
            "schedule",
            "calibration",
            "quality",
            "unknown_models",
            "precision",
            "dense_backend",
            "max_extra_memory",
        ],
    )


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"level_4": 0.2}, r"Preset Loader: level_4 = 0\.2: must not be below"),
        ({"level_8": 0.7, "level_64": 0.9}, r"Preset Loader: mask_ratios = 64: a level must be one of 1, 2, .* 32"),
    ],
)
def test_broken_preset_names_the_key(comfyui: ComfyUI, numbers: dict[str, float], message: str) -> None:
    with pytest.raises(PromptFailedError, match=message):
        comfyui.client.run(single_pass("wan_t2v", patch=psa(**numbers)))


@pytest.mark.parametrize("numbers", [{"level_1": 1.5}, {"mask_mode": "best"}, {"block_n": "48"}, {"warmup_steps": -1}])
def test_widget_value_out_of_range_is_refused_before_anything_runs(
    comfyui: ComfyUI, numbers: dict[str, object]
) -> None:
    with pytest.raises(PromptRejectedError) as refused:
        comfyui.client.run(single_pass("wan_t2v", patch=psa(**numbers)))

    assert next(iter(numbers)) in str(refused.value.node_errors)


def test_unknown_preset_name_runs_on_its_numbers(comfyui: ComfyUI) -> None:
    here = comfyui.client.sample(single_pass("wan_t2v", patch=psa()))
    shared = comfyui.client.sample(
        single_pass("wan_t2v", patch=psa(model="A model of mine", preset="a preset that is not on this machine"))
    )

    assert torch.equal(here, shared)


def test_dense_preset_is_a_baseline(comfyui: ComfyUI) -> None:
    graph = single_pass("cogvideox", patch=psa(attention="dense"))

    result = comfyui.client.run(graph)

    assert torch.equal(comfyui.client.latent(result), comfyui.client.sample(single_pass("cogvideox")))
    assert line(result, graph).reasons == {"the preset is dense": 6}


def test_log_holds_the_line_of_the_node(comfyui: ComfyUI) -> None:
    before = len(comfyui.server.log_text())
    graph = single_pass("wan_t2v", patch=psa())

    result = comfyui.client.run(graph)

    shown = result.lines[graph.nodes_of("PSAAttentionPatch")[0]]
    assert comfyui.server.log_text()[before:].count(shown) == 1
    assert len(lines(result, graph)) == 1


@pytest.mark.parametrize("host", ["wan_t2v", "cogvideox"])
def test_every_host_grid_is_explained(comfyui: ComfyUI, host: str) -> None:
    frames, height, width = HOSTS[host].latent
    for latent in ((1, 2, 2), (1, height, width), (frames, 7, 5)):
        graph = single_pass(host, Settings(latent=latent), psa())
        assert set(line(comfyui.client.run(graph), graph).reasons) <= {"cross-attention"}
