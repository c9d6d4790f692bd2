"""The Radial Mask on the patch: what it keeps is what psa_core says, in every mode and on every kind of model."""

from __future__ import annotations

import pytest
import torch

from psa_core import radial_levels
from psa_core.ops.levels.rules import density

from ..client import PromptRejectedError
from ..conftest import ComfyUI
from ..graphs import Settings, single_pass, two_segments
from ..psa import LEVEL_1_ONLY, MASK_WIDGETS, Widgets, line, lines, psa, relative_error
from ..tiny_models import HOSTS, LatentGrid

# CogVideoX 1.5 has two latent frames a token: it needs a longer clip for the mask to narrow.
LATENTS: dict[str, LatentGrid] = {
    "wan_t2v": (5, 16, 24),
    "wan22_i2v": (7, 12, 20),
    "wan22_ti2v": (5, 10, 26),
    "wan_vace": (5, 16, 24),
    "cogvideox": (5, 16, 24),
    "cogvideox15": (9, 16, 24),
}
NARROW: Widgets = {"decay_factor": 0.2, "block_size": 8}
ROUNDED = 6e-4
LAYERS = 2
STEPS = 6


def settings_of(host: str) -> Settings:
    return Settings(latent=LATENTS[host])


def radial_map(
    host: str, model_type: str | None = None, latent: LatentGrid | None = None, text: int | None = None,
    block_size: int = 8, coarsen: bool = False,
) -> torch.Tensor:  # fmt: skip
    """The level map of a narrow mask on a host's clip, by the rule of its model unless given."""
    in_front = HOSTS[host].text_tokens if text is None else text
    is_cogvideox = host.startswith("cogvideox")
    return radial_levels(
        HOSTS[host].token_grid(latent or LATENTS[host]),
        block_m=128,
        block_n=32,
        model_type=model_type or ("cogvideox" if is_cogvideox else "wan"),
        decay_factor=0.2,
        text_length=in_front if is_cogvideox else 0,
        block_size=block_size,
        coarsen=coarsen,
    )


def test_widgets_are_what_the_helper_knows(comfyui: ComfyUI) -> None:
    info = comfyui.client.object_info("PSARadialMask")

    assert info is not None
    assert list(info["input"]["required"]) == list(MASK_WIDGETS)
    assert info["output"] == ["PSA_MASK"]


@pytest.mark.parametrize("host", LATENTS)
def test_dense_mask_gives_the_dense_latent(comfyui: ComfyUI, host: str) -> None:
    dense = comfyui.client.sample(single_pass(host, settings_of(host)))
    graph = single_pass(host, settings_of(host), psa(mask={"sparsity_type": "dense"}))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert shown.sparse > 0
    assert shown.density == 1.0
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4


@pytest.mark.parametrize("block_size", [8, 16])
@pytest.mark.parametrize("host", LATENTS)
def test_narrow_mask_keeps_what_psa_core_says(comfyui: ComfyUI, host: str, block_size: int) -> None:
    patch = psa(mask=NARROW | {"block_size": block_size})
    expected = float(density(radial_map(host, block_size=block_size)))
    assert expected < 0.97
    dense = comfyui.client.sample(single_pass(host, settings_of(host)))
    graph = single_pass(host, settings_of(host), patch)

    result = comfyui.client.run(graph)

    latent = comfyui.client.latent(result)
    assert line(result, graph).density == pytest.approx(expected, abs=ROUNDED)
    assert torch.isfinite(latent).all()
    assert 1e-3 < relative_error(latent, dense) < 2.0
    assert torch.equal(comfyui.client.sample(single_pass(host, settings_of(host), patch)), latent)


@pytest.mark.parametrize("model_type", ["wan", "cogvideox"])
@pytest.mark.parametrize("host", ["wan_t2v", "cogvideox", "cogvideox15"])
def test_the_rule_chosen_is_the_rule_that_runs(comfyui: ComfyUI, host: str, model_type: str) -> None:
    expected = {rule: float(density(radial_map(host, rule))) for rule in ("wan", "cogvideox")}
    assert abs(expected["wan"] - expected["cogvideox"]) > 0.01
    graph = single_pass(host, settings_of(host), psa(mask=NARROW | {"model_type": model_type}))

    shown = line(comfyui.client.run(graph), graph)

    assert shown.density == pytest.approx(expected[model_type], abs=ROUNDED)


def test_prompts_of_unequal_length_have_masks_of_their_own(comfyui: ComfyUI) -> None:
    settings = Settings(latent=LATENTS["cogvideox"], positive_tokens=300, negative_tokens=7)
    expected = [float(density(radial_map("cogvideox", text=text))) for text in (300, 7)]
    graph = single_pass("cogvideox", settings, psa(mask=NARROW | {"dense_layers": 1}))

    shown = line(comfyui.client.run(graph), graph)

    # Two forwards a step, of three layers each.
    assert (shown.sparse, shown.reasons) == (8, {"dense layer": 4})
    assert shown.density == pytest.approx(sum(expected) / 2, abs=ROUNDED)


@pytest.mark.parametrize("host", ["wan_t2v", "cogvideox15"])
def test_coarsen_pools_what_would_be_cut(comfyui: ComfyUI, host: str) -> None:
    latent = (25 if host == "cogvideox15" else 13, 8, 24)
    levels = radial_map(host, latent=latent, coarsen=True)
    assert set(levels.unique().tolist()) == {1, 2, 4, 8}
    graph = single_pass(host, Settings(latent=latent, cfg=1.0), psa(mask=NARROW | {"mode": "coarsen"}))

    result = comfyui.client.run(graph)

    assert line(result, graph).density == pytest.approx(float(density(levels)), abs=ROUNDED)
    assert torch.isfinite(comfyui.client.latent(result)).all()


@pytest.mark.parametrize("host", ["wan_t2v", "cogvideox"])
def test_two_maps_meet_by_the_mode(comfyui: ComfyUI, host: str) -> None:
    def reached(mask: Widgets | None) -> float:
        graph = single_pass(host, settings_of(host), psa(mask=mask))
        shown = line(comfyui.client.run(graph), graph).density
        assert shown is not None
        return shown

    chosen, mask = reached(None), float(density(radial_map(host)))

    assert reached(NARROW | {"mode": "intersect"}) < min(chosen, mask) - 1e-3
    assert reached(NARROW | {"mode": "finer wins"}) > max(chosen, mask) + 1e-3


def test_intersect_with_all_that_psa_keeps_is_the_mask_alone(comfyui: ComfyUI) -> None:
    alone = comfyui.client.sample(single_pass("wan_t2v", patch=psa(mask=NARROW)))
    dense = comfyui.client.sample(single_pass("wan_t2v"))

    met = {
        kind: comfyui.client.sample(
            single_pass("wan_t2v", patch=psa(mask={"mode": "intersect", "sparsity_type": kind}, **LEVEL_1_ONLY))
        )
        for kind in ("radial", "dense")
    }

    assert relative_error(met["radial"], alone) < 1e-4
    assert relative_error(met["dense"], dense) < 1e-4


@pytest.mark.parametrize(("mode", "warmup"), [("radial only", 0), ("coarsen", 0), ("intersect", 2), ("finer wins", 2)])
def test_warmup_of_the_preset_is_for_what_the_preset_decides(comfyui: ComfyUI, mode: str, warmup: int) -> None:
    graph = single_pass("wan_t2v", Settings(steps=4, cfg=1.0), psa(mask={"mode": mode}, warmup_steps=2))

    shown = line(comfyui.client.run(graph), graph)

    assert (shown.sparse, shown.reasons["warm-up"]) == (LAYERS * (4 - warmup), LAYERS * warmup)


@pytest.mark.parametrize("scheduler", ["simple", "karras", "linear_quadratic"])
def test_dense_steps_are_counted_over_both_segments(comfyui: ComfyUI, scheduler: str) -> None:
    settings = Settings(steps=STEPS, cfg=1.0, scheduler=scheduler)
    mask = {"dense_timesteps": 3, "last_dense_timesteps": 1, "dense_layers": 1}
    graph = two_segments("wan_t2v", settings, psa(mask=mask), switch_step=2)

    first, second = lines(comfyui.client.run(graph), graph)

    assert (first.sparse, first.reasons) == (0, {"warm-up": 2 * LAYERS, "cross-attention": 2 * LAYERS})
    # Of steps 2 to 5, the first is warm-up and the last a last step; between, one of two layers is dense.
    assert (second.sparse, second.reasons) == (
        2,
        {"warm-up": LAYERS, "last steps": LAYERS, "dense layer": 2, "cross-attention": 4 * LAYERS},
    )


@pytest.mark.parametrize(("switch_step", "in_high"), [(2, 0), (5, 1)])
def test_last_steps_of_two_experts_are_those_of_the_denoising(comfyui: ComfyUI, switch_step: int, in_high: int) -> None:
    patch = psa(mask={"last_dense_timesteps": 2})
    graph = two_segments(
        "wan22_i2v",
        Settings(steps=STEPS, cfg=1.0),
        patch,
        low_noise_host_name="wan22_i2v_low_noise",
        low_noise_patch=patch,
        switch_step=switch_step,
    )

    high, low = lines(comfyui.client.run(graph), graph)

    assert high.reasons["last steps"] == LAYERS * in_high
    assert low.reasons["last steps"] == LAYERS * (2 - in_high)
    assert (high.sparse, low.sparse) == (LAYERS * (switch_step - in_high), LAYERS * (4 - switch_step + in_high))


# VACE's own block stands at the index of the block that it feeds; CogVideoX gives none.
@pytest.mark.parametrize(
    ("host", "dense_layers", "dense", "sparse"),
    [("wan_t2v", 1, 1, 1), ("wan_vace", 1, 2, 1), ("cogvideox", 2, 2, 1), ("cogvideox15", 5, 3, 0)],
)
def test_dense_layers_are_the_first(comfyui: ComfyUI, host: str, dense_layers: int, dense: int, sparse: int) -> None:
    steps = 3
    graph = single_pass(host, Settings(steps=steps), psa(mask={"dense_layers": dense_layers}))

    shown = line(comfyui.client.run(graph), graph)

    assert (shown.sparse, shown.reasons["dense layer"]) == (sparse * steps, dense * steps)


@pytest.mark.parametrize(
    ("widgets", "word"),
    [
        ({"mode": "best"}, "mode"),
        ({"decay_factor": 0.0}, "decay_factor"),
        ({"block_size": 0}, "block_size"),
        ({"model_type": "mochi"}, "model_type"),
        ({"dense_layers": -1}, "dense_layers"),
    ],
)
def test_value_out_of_range_is_refused_before_anything_runs(comfyui: ComfyUI, widgets: Widgets, word: str) -> None:
    with pytest.raises(PromptRejectedError) as refused:
        comfyui.client.run(single_pass("wan_t2v", patch=psa(mask=widgets)))

    assert word in str(refused.value.node_errors)
