"""The Sparsity Schedule on the patch: dense steps and layers, and curves, counted over the whole denoising."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from psa_core import PSAConfig, Schedule
from psa_core.settings.at_step import config_at
from psa_core.settings.mask_ratios import mask_ratios_from_bounds
from psa_core.settings.schedule import CURVES

from ..client import PromptFailedError, PromptRejectedError
from ..conftest import ComfyUI
from ..graphs import Settings, single_pass, two_segments
from ..psa import ADDED_SCHEDULE_WIDGETS, PRESET_NUMBERS, SCHEDULE_WIDGETS, Line, Widgets, line, lines, psa

LAYERS = 2
STEPS = 8
K_BLOCKS = 15
ROUNDED = 6e-4


def settings(scheduler: str = "simple", sampler_name: str = "euler", steps: int = STEPS) -> Settings:
    return Settings(steps=steps, cfg=1.0, scheduler=scheduler, sampler_name=sampler_name)


def counts(shown: Line) -> tuple[int, Counter[str]]:
    """Sparse calls, and reasons for dense ones but cross-attention."""
    return shown.sparse, Counter({reason: n for reason, n in shown.reasons.items() if reason != "cross-attention"})


def expected_counts(steps: range, warmup: int, last_dense: int, layers: int = LAYERS) -> tuple[int, Counter[str]]:
    """What :func:`counts` should be of a sampler call that makes one forward in each of these steps."""
    reasons = Counter("warm-up" if s < warmup else "last steps" if s >= STEPS - last_dense else "" for s in steps)
    sparse = layers * reasons.pop("", 0)
    return sparse, Counter({reason: layers * n for reason, n in reasons.items()})


def density_at(step: int, schedule: Schedule) -> float:
    """What a step reaches under topk: quotas of 15 blocks rounded up, and no row without a block."""
    bounds = {level: PRESET_NUMBERS[f"level_{level}"] for level in (1, 2, 4, 8)}
    config = PSAConfig(block_n=32, mask_mode="topk", mask_ratios=mask_ratios_from_bounds(bounds), schedule=schedule)
    cost, taken = 0.0, 0
    for level, (_, hi) in config_at(config, step, STEPS).mask_ratios.items():
        upto = math.ceil(hi * K_BLOCKS - 1e-9)
        cost += (upto - taken) / level if level else 0
        taken = upto
    return max(cost, 1) / K_BLOCKS


def schedule_of(widgets: Widgets) -> Schedule:
    """The core's schedule behind a node's widgets."""
    widgets = SCHEDULE_WIDGETS | widgets
    start, end = (
        mask_ratios_from_bounds({level: widgets[f"{side}_{level}"] for level in (1, 2, 4, 8)})
        for side in ("start", "end")
    )
    kept = {key: widgets[key] for key in ("warmup", "last_dense", "curve")}
    return Schedule(start=start, end=end, **kept)


def mean(densities: list[float]) -> float:
    return sum(densities) / len(densities)


def test_widgets_are_what_the_helper_knows(comfyui: ComfyUI) -> None:
    info = comfyui.client.object_info("PSASparsitySchedule")

    assert info is not None
    assert list(info["input"]["required"]) == list(SCHEDULE_WIDGETS)
    assert {key: spec[1]["default"] for key, spec in info["input"]["required"].items()} == SCHEDULE_WIDGETS
    assert {key: spec[1]["default"] for key, spec in info["input"]["optional"].items()} == ADDED_SCHEDULE_WIDGETS
    assert info["output"] == ["PSA_SCHEDULE"]


@pytest.mark.parametrize("scheduler", ["simple", "normal", "karras", "beta", "linear_quadratic"])
@pytest.mark.parametrize(
    ("switch_step", "warmup", "last_dense", "numbers"),
    [(1, "2", "25%", (2, 2)), (3, "25%", "3", (2, 3)), (7, "30%", " 2 ", (3, 2))],
)
def test_dense_steps_in_segments_of_every_scheduler(
    comfyui: ComfyUI, scheduler: str, switch_step: int, warmup: str, last_dense: str, numbers: tuple[int, int]
) -> None:
    patch = psa(schedule={"warmup": warmup, "last_dense": last_dense})
    graph = two_segments("wan_t2v", settings(scheduler), patch, switch_step=switch_step)

    first, second = lines(comfyui.client.run(graph), graph)

    assert counts(first) == expected_counts(range(switch_step), *numbers)
    assert counts(second) == expected_counts(range(switch_step, STEPS), *numbers)


@pytest.mark.parametrize(
    ("scheduler", "switch_step"), [("simple", 1), ("normal", 2), ("karras", 5), ("beta", 1), ("linear_quadratic", 5)]
)
def test_dense_steps_in_segments_of_cogvideox(comfyui: ComfyUI, scheduler: str, switch_step: int) -> None:
    patch = psa(schedule={"warmup": "1", "last_dense": "25%"})
    graph = two_segments("cogvideox", settings(scheduler), patch, switch_step=switch_step)

    first, second = lines(comfyui.client.run(graph), graph)

    assert counts(first) == expected_counts(range(switch_step), 1, 2, layers=3)
    assert counts(second) == expected_counts(range(switch_step, STEPS), 1, 2, layers=3)


@pytest.mark.parametrize(("host", "layers"), [("wan_t2v", 2), ("wan22_ti2v", 2), ("cogvideox", 3), ("cogvideox15", 3)])
def test_dense_steps_in_one_pass(comfyui: ComfyUI, host: str, layers: int) -> None:
    graph = single_pass(host, settings(), psa(schedule={"warmup": "25%", "last_dense": "1"}))

    shown = line(comfyui.client.run(graph), graph)

    assert counts(shown) == (5 * layers, Counter({"warm-up": 2 * layers, "last steps": layers}))


@pytest.mark.parametrize("sampler_name", ["dpm_2", "uni_pc"])
def test_samplers_that_drop_a_sigma(comfyui: ComfyUI, sampler_name: str) -> None:
    patch = psa(schedule={"warmup": "2", "last_dense": "3"})
    graph = two_segments("wan_t2v", settings("simple", sampler_name), patch, switch_step=3)

    first, second = lines(comfyui.client.run(graph), graph)

    # dpm_2 asks twice in every step but the last.
    calls = 2 if sampler_name == "dpm_2" else 1
    assert counts(first) == (calls * LAYERS, Counter({"warm-up": 2 * calls * LAYERS}))
    assert counts(second) == (2 * calls * LAYERS, Counter({"last steps": (2 * calls + 1) * LAYERS}))


def test_last_steps_of_two_experts_are_those_of_the_denoising(comfyui: ComfyUI) -> None:
    patch = psa(schedule={"warmup": "1", "last_dense": "25%"})
    low = {"low_noise_host_name": "wan22_i2v_low_noise", "low_noise_patch": patch}
    graph = two_segments("wan22_i2v", settings(), patch, switch_step=3, **low)

    first, second = lines(comfyui.client.run(graph), graph)

    assert counts(first) == expected_counts(range(3), 1, 2)
    assert counts(second) == expected_counts(range(3, STEPS), 1, 2)


@pytest.mark.parametrize(("warmup", "dense"), [("preset", 3), (" preset ", 3), ("0", 0), ("5", 5), ("100%", 8)])
def test_warmup_is_the_presets_unless_given(comfyui: ComfyUI, warmup: str, dense: int) -> None:
    graph = single_pass("wan_t2v", settings(), psa(warmup_steps=3, schedule={"warmup": warmup}))

    assert counts(line(comfyui.client.run(graph), graph)) == expected_counts(range(STEPS), dense, 0)


# CogVideoX gives no block index: calls are counted.
@pytest.mark.parametrize(
    ("host", "dense_layers", "dense", "sparse"),
    [("wan_t2v", "0", 1, 1), ("wan_vace", "0", 2, 1), ("cogvideox", "0", 1, 2), ("cogvideox15", "0, 2-9", 2, 1)],
)
def test_dense_layers(comfyui: ComfyUI, host: str, dense_layers: str, dense: int, sparse: int) -> None:
    graph = single_pass(host, settings(steps=3), psa(schedule={"dense_layers": dense_layers}))

    shown = line(comfyui.client.run(graph), graph)

    assert counts(shown) == (3 * sparse, Counter({"dense layer": 3 * dense}))


@pytest.mark.parametrize("curve", [curve for curve in CURVES if curve != "timestep"])
def test_curves_reach_the_density_of_every_step(comfyui: ComfyUI, curve: str) -> None:
    widgets: Widgets = {"warmup": "1", "last_dense": "1", "curve": curve}
    schedule = schedule_of(widgets)
    patch = psa(schedule=widgets)
    whole, parts = single_pass("wan_t2v", settings(), patch), two_segments("wan_t2v", settings(), patch, switch_step=3)

    one_pass = line(comfyui.client.run(whole), whole)
    first, second = lines(comfyui.client.run(parts), parts)

    assert first.density == pytest.approx(mean([density_at(s, schedule) for s in (1, 2)]), abs=ROUNDED)
    assert second.density == pytest.approx(mean([density_at(s, schedule) for s in (3, 4, 5, 6)]), abs=ROUNDED)
    assert (first.sparse, second.sparse) == (2 * LAYERS, 4 * LAYERS)
    assert one_pass.sparse == 6 * LAYERS
    assert one_pass.density == pytest.approx((2 * first.density + 4 * second.density) / 6, abs=2 * ROUNDED)


def test_timestep_gives_a_step_one_level_and_leaves_full_resolution_to_the_model(comfyui: ComfyUI) -> None:
    bounds = {"start_1": 0.4, "start_2": 0.5, "start_4": 0.75, "start_8": 0.8}
    patch = psa(schedule={"warmup": "1", "last_dense": "1", "curve": "timestep"} | bounds)
    graph = two_segments("wan_t2v", settings(), patch, switch_step=5)

    first, second = lines(comfyui.client.run(graph), graph)

    # Of 8 steps, 0 to 3 lie in the first 40 %, 4 and 5 at level 4, 6 at level 8, 7 is dense.
    assert counts(first) == (LAYERS, Counter({"warm-up": LAYERS, "full-resolution step": 3 * LAYERS}))
    assert counts(second) == (2 * LAYERS, Counter({"last steps": LAYERS}))
    assert (first.density, second.density) == (0.25, pytest.approx((1 / 4 + 1 / 8) / 2, abs=ROUNDED))


def test_steps_that_are_given_win_over_those_that_are_found(comfyui: ComfyUI) -> None:
    """Of the sampler's 8 steps all are found; the schedule says that they are 5 to 12 of 16."""
    patch = psa(schedule={"warmup": "50%", "last_dense": "25%", "steps": 16, "start_step": 5})
    graph = single_pass("wan_t2v", settings(), patch)

    assert counts(line(comfyui.client.run(graph), graph)) == (
        4 * LAYERS,
        Counter({"warm-up": 3 * LAYERS, "last steps": LAYERS}),
    )


def test_more_steps_than_are_left_of_the_whole_are_refused(comfyui: ComfyUI) -> None:
    patch = psa(schedule={"steps": 10, "start_step": 3})

    with pytest.raises(PromptFailedError, match=r"schedule\.steps = 10: must be 11 or more.* 8 steps from step 3 on"):
        comfyui.client.run(single_pass("wan_t2v", settings(), patch))


# The simple scheduler's steps begin at equal shares of the model's noise levels, whatever the shift.
@pytest.mark.parametrize("host", ["wan_t2v", "wan22_ti2v"])
def test_window_of_noise(comfyui: ComfyUI, host: str) -> None:
    patch = psa(schedule={"start_percent": 0.25, "end_percent": 0.75})
    graph = single_pass(host, settings(), patch)

    assert counts(line(comfyui.client.run(graph), graph)) == (
        4 * LAYERS,
        Counter({"outside the schedule's window": 4 * LAYERS}),
    )


def test_window_and_dense_steps_must_both_allow_a_step(comfyui: ComfyUI) -> None:
    patch = psa(schedule={"warmup": "3", "last_dense": "1", "start_percent": 0.25, "end_percent": 0.75})
    graph = two_segments("wan_t2v", settings(), patch, switch_step=4)

    first, second = lines(comfyui.client.run(graph), graph)

    assert counts(first) == (LAYERS, Counter({"warm-up": 3 * LAYERS}))
    outside = {"outside the schedule's window": LAYERS}
    assert counts(second) == (2 * LAYERS, Counter(outside | {"last steps": LAYERS}))


def test_curves_differ() -> None:
    """What the test above compares with would not tell equal curves apart."""
    halves = []
    for curve in CURVES:
        schedule = schedule_of({"warmup": "1", "last_dense": "1", "curve": curve})
        halves.append([mean([density_at(s, schedule) for s in steps]) for steps in ((1, 2), (3, 4, 5, 6))])
    assert all(abs(a[1] - b[1]) > 0.01 for i, a in enumerate(halves) for b in halves[:i])


def test_linear_runs_from_start_to_end_over_the_sparse_steps(comfyui: ComfyUI) -> None:
    level_1 = {"start_1": 0.6, "end_1": 0.2} | {f"{side}_{x}": 0.0 for side in ("start", "end") for x in (2, 4, 8)}
    patch = psa(schedule={"warmup": "1", "last_dense": "1", "curve": "linear"} | level_1)
    graph = two_segments("wan_t2v", settings(steps=5), patch, switch_step=2)

    first, second = lines(comfyui.client.run(graph), graph)

    # 9, 6 and 3 of 15 blocks.
    assert (first.density, second.density) == (0.6, 0.3)


def test_curve_needs_the_preset_only_where_it_says_so(comfyui: ComfyUI) -> None:
    def density(curve: str, **numbers: float) -> float | None:
        graph = single_pass("wan_t2v", patch=psa(schedule={"curve": curve}, **numbers))
        return line(comfyui.client.run(graph), graph).density

    assert density("preset", level_1=0.2) == pytest.approx((3 + 3 / 2 + 2 / 4 + 3 / 8) / K_BLOCKS, abs=ROUNDED)
    assert density("constant", level_1=0.2) == density("constant")


@pytest.mark.parametrize(
    ("widgets", "word"),
    [
        ({"warmup": "soon"}, "warmup = 'soon'"),
        ({"warmup": ""}, "warmup = ''"),
        ({"warmup": "-1"}, "warmup = '-1'"),
        ({"last_dense": "150%"}, "last_dense = '150%'"),
        ({"last_dense": "preset"}, "last_dense = 'preset'"),
        ({"dense_layers": "0, 3-1"}, "dense_layers = '3-1'"),
        ({"dense_layers": "first"}, "dense_layers = 'first'"),
        ({"curve": "steep"}, "'steep' not in"),
        ({"end_8": 1.5}, "end_8"),
        ({"steps": -1}, "steps = -1"),
        ({"start_step": 2}, "start_step = 2: needs steps"),
        ({"steps": 2, "start_step": 2}, "start_step = 2: must be below steps"),
        ({"start_percent": 0.9, "end_percent": 0.4}, "start_percent = 0.9"),
    ],
)
def test_value_that_cannot_be_read_is_refused_before_anything_runs(
    comfyui: ComfyUI, widgets: Widgets, word: str
) -> None:
    with pytest.raises(PromptRejectedError) as refused:
        comfyui.client.run(single_pass("wan_t2v", patch=psa(schedule=widgets)))

    (node,) = refused.value.node_errors.values()
    (error,) = node["errors"]
    assert node["class_type"] == "PSASparsitySchedule"
    assert word in error["details"]


@pytest.mark.parametrize("bound", ["start_4", "end_2"])
def test_falling_bounds_name_the_widget(comfyui: ComfyUI, bound: str) -> None:
    with pytest.raises(PromptFailedError, match=rf"Sparsity Schedule: {bound} = 0\.05: must not be below"):
        comfyui.client.run(single_pass("wan_t2v", patch=psa(schedule={"curve": "linear", bound: 0.05})))
    # Bounds that nobody asks for may be anything.
    comfyui.client.run(single_pass("wan_t2v", patch=psa(schedule={"curve": "preset", bound: 0.05})))


@pytest.mark.parametrize(("key", "text"), [("warmup", "25%"), ("last_dense", "2"), ("dense_layers", "1")])
def test_texts_may_come_from_other_nodes(comfyui: ComfyUI, key: str, text: str) -> None:
    written = single_pass("wan_t2v", settings(), psa(schedule={key: text}))
    linked, broken = (single_pass("wan_t2v", settings(), psa(schedule={})) for _ in range(2))
    for graph, value in ((linked, text), (broken, "x")):
        (node,) = graph.nodes_of("PSASparsitySchedule")
        graph[node]["inputs"][key] = graph.add("PrimitiveString", value=value)

    assert counts(line(comfyui.client.run(linked), linked)) == counts(line(comfyui.client.run(written), written))
    with pytest.raises(PromptFailedError, match=f"Sparsity Schedule: {key} = 'x'"):
        comfyui.client.run(broken)
