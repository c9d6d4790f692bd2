"""The patch beside what other packs do to a model: sampling goes on, and what the node says is what happened."""

from __future__ import annotations

import random

import pytest
import torch

from ..conftest import ComfyUI
from ..families import CASES, sampled
from ..graphs import Graph, Link, Patch, Settings, single_pass
from ..psa import LEVEL_1_ONLY, LEVEL_8_ONLY, chain, line, psa, relative_error

LAYERS = 2
SETTINGS = Settings(steps=3, cfg=1.0)


def node(class_type: str, **inputs: object) -> Patch:
    def add(graph: Graph, model: Link) -> Link:
        return graph.add(class_type, model=model, **inputs)

    return add


def both_orders(other: Patch, patch: Patch) -> list[Patch]:
    return [chain(other, patch), chain(patch, other)]


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@pytest.mark.parametrize("psa_last", [True, False])
def test_copies_of_the_options(comfyui: ComfyUI, psa_last: bool, way: str) -> None:
    alone = comfyui.client.sample(single_pass("wan_t2v", SETTINGS, psa(warmup_steps=1)))
    graph = single_pass(
        "wan_t2v", SETTINGS, both_orders(node("PSATestCopy", way=way), psa(warmup_steps=1))[not psa_last]
    )

    result = comfyui.client.run(graph)

    assert line(result, graph).sparse == 2 * LAYERS
    assert torch.equal(comfyui.client.latent(result), alone)


def test_options_that_are_cleared_leave_the_model_as_it_was(comfyui: ComfyUI) -> None:
    dense = comfyui.client.sample(single_pass("wan_t2v", SETTINGS))
    cleared = single_pass("wan_t2v", SETTINGS, chain(psa(), node("PSATestClear")))
    assert torch.equal(comfyui.client.sample(cleared), dense)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("float64", "q, k and v of different dtypes (torch.float32, torch.float32, torch.float64)"),
        ("gradients", "gradients are on (torch.no_grad turns them off)"),
    ],
)
def test_what_has_no_gradients_or_one_dtype_stays_dense(comfyui: ComfyUI, kind: str, said: str) -> None:
    dense = comfyui.client.sample(single_pass("wan_t2v", SETTINGS))
    graph = single_pass("wan_t2v", SETTINGS, chain(node("PSATestOddValues", kind=kind), psa()))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert (shown.sparse, shown.reasons[said]) == (0, SETTINGS.steps * LAYERS)
    assert torch.equal(comfyui.client.latent(result), dense)


@pytest.mark.parametrize("psa_last", [True, False])
def test_a_forward_that_calls_blocks_without_options(comfyui: ComfyUI, psa_last: bool) -> None:
    """The first forward shows that nothing is reached; the others are."""
    own = node("PSATestOwnForward")
    dense = comfyui.client.sample(single_pass("wan_t2v", SETTINGS, own))
    graph = single_pass("wan_t2v", SETTINGS, both_orders(own, psa(**LEVEL_1_ONLY))[not psa_last])

    result = comfyui.client.run(graph)

    assert line(result, graph).sparse == (SETTINGS.steps - 1) * LAYERS
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4
    after = single_pass("wan_t2v", SETTINGS, psa())
    assert line(comfyui.client.run(after), after).sparse == SETTINGS.steps * LAYERS


@pytest.mark.parametrize("psa_last", [True, False])
def test_a_forward_within_a_forward(comfyui: ComfyUI, psa_last: bool) -> None:
    alone = comfyui.client.sample(single_pass("wan_t2v", SETTINGS, psa(warmup_steps=1)))
    graph = single_pass("wan_t2v", SETTINGS, both_orders(node("PSATestTwice"), psa(warmup_steps=1))[not psa_last])

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert (shown.sparse, shown.reasons["warm-up"]) == (2 * 2 * LAYERS, 2 * LAYERS)
    assert torch.equal(comfyui.client.latent(result), alone)


@pytest.mark.parametrize("psa_last", [True, False])
def test_attention_that_asks_nobody(comfyui: ComfyUI, psa_last: bool) -> None:
    graph = single_pass("wan_t2v", SETTINGS, both_orders(node("PSATestOwnAttention"), psa())[not psa_last])

    result = comfyui.client.run(graph)

    (text,) = [text for text in result.lines.values() if text.startswith("PSA")]
    assert text == "PSA: no attention call reached the pack; another node has replaced this model's attention"


@pytest.mark.parametrize("psa_last", [True, False])
def test_model_sparse_attention_leaves_dense_what_is_called_dense(comfyui: ComfyUI, psa_last: bool) -> None:
    """Its stand-in gives zeros, which no dense step may have."""
    dense = comfyui.client.sample(single_pass("wan_t2v", SETTINGS))
    patch = psa(warmup_steps=SETTINGS.steps)
    graph = single_pass("wan_t2v", SETTINGS, both_orders(node("PSATestSparseAttention"), patch)[not psa_last])

    result = comfyui.client.run(graph)

    assert line(result, graph).reasons["warm-up"] == SETTINGS.steps * LAYERS
    assert torch.equal(comfyui.client.latent(result), dense)


def test_what_is_left_to_model_sparse_attention_is_reported_so(comfyui: ComfyUI) -> None:
    def short(graph: Graph, model: Link) -> Link:
        patched = psa()(graph, model)
        graph[patched[0]]["inputs"]["min_tokens"] = 1000
        return patched

    graph = single_pass("wan_t2v", SETTINGS, chain(node("PSATestSparseAttention"), short))

    (reason,) = [reason for reason in line(comfyui.client.run(graph), graph).reasons if "min_tokens" in reason]

    assert reason.endswith("; left to Model Sparse Attention")
    warned = [text for text in comfyui.server.log_text().splitlines() if "use one of the two" in text]
    assert "Model Sparse Attention" in warned[-1]
    assert "PSA Attention Patch" in warned[-1]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("kind", ["error", "out of memory", "interrupt"])
def test_a_run_that_is_broken_off_leaves_nothing(comfyui: ComfyUI, kind: str, step: int) -> None:
    whole = single_pass("wan_t2v", SETTINGS, psa(warmup_steps=1))
    before = comfyui.client.sample(whole)
    broken_off = chain(psa(warmup_steps=1), node("PSATestBreakOff", kind=kind, step=step))

    failed = comfyui.client.run(single_pass("wan_t2v", SETTINGS, broken_off), check=False)

    assert failed.error is not None
    assert ("the test" in failed.error.get("exception_message", "")) == (kind != "interrupt")
    # Nothing stays of what was said while it went on.
    assert all("step" in text or text == "" for _, text in failed.said)
    assert set(failed.lines.values()) == {""}
    assert torch.equal(comfyui.client.sample(single_pass("wan_t2v", SETTINGS, psa(warmup_steps=1))), before)


def test_numbers_that_cannot_be_read_cost_no_result(comfyui: ComfyUI) -> None:
    wanted = comfyui.client.sample(single_pass("wan_t2v", SETTINGS, psa()))
    graph = single_pass("wan_t2v", SETTINGS, chain(psa(), node("PSATestUnreadable")))

    result = comfyui.client.run(graph)

    assert set(result.lines.values()) == {""}
    assert torch.equal(comfyui.client.latent(result), wanted)
    assert "what the attention of this run did cannot be read: RuntimeError: CUDA" in comfyui.server.log_text()


@pytest.mark.slow
def test_two_hundred_prompts_later_the_bits_are_the_same(comfyui: ComfyUI, request: pytest.FixtureRequest) -> None:
    def break_off(kind: str) -> Patch:
        return lambda graph, model: node("PSATestBreakOff", kind=kind, step=draw.randrange(SETTINGS.steps))(
            graph, model
        )

    draw = random.Random(request.config.option.seed)
    reference = psa(warmup_steps=1)
    before = comfyui.client.sample(single_pass("wan_t2v", SETTINGS, reference))
    others: list[Patch] = [
        *(break_off(kind) for kind in ("error", "out of memory", "interrupt")),
        node("PSATestCopy", way="deepcopy"),
        *(node(f"PSATest{name}") for name in ("OwnForward", "OwnAttention", "SparseAttention")),
        *COMPILED.values(),
        *(psa(warmup_steps=steps) for steps in range(3)),
    ]
    ended = 0
    for _ in range(200):
        patches = draw.sample(others, draw.randrange(4))
        host = draw.choice(["wan_t2v", "wan_t2v", "cogvideox"])
        if host != "wan_t2v":
            patches = [patch for patch in patches if patch in others[:4] or patch in others[-3:]]
        graph = single_pass(host, SETTINGS, chain(*patches) if patches else None)
        ended += comfyui.client.run(graph, timeout=300, check=False).error is None

    assert 50 < ended < 190
    assert torch.equal(comfyui.client.sample(single_pass("wan_t2v", SETTINGS, reference)), before)


WHOLE = node("PSATestCompile", fullgraph=False, blocks=False)
COMPILED = {
    # First: those that follow find its graphs.
    "whole in one graph, without guards": node("PSATestCompile", fullgraph=True, blocks=False, keeps_state=False),
    "whole": WHOLE,
    "blocks": node("PSATestCompile", fullgraph=True, blocks=True),
}


@pytest.mark.parametrize("compiled", COMPILED.values(), ids=COMPILED)
@pytest.mark.parametrize("psa_last", [True, False])
def test_compiled_in_every_order(comfyui: ComfyUI, compiled: Patch, psa_last: bool) -> None:
    """Graphs are kept by the model's class: dense, sparse and dense again must each be what they are without them."""
    patch = psa(warmup_steps=1)
    dense = comfyui.client.sample(single_pass("wan_t2v", SETTINGS))
    sparse = comfyui.client.sample(single_pass("wan_t2v", SETTINGS, patch))
    assert relative_error(sparse, dense) > 1e-3

    for _ in range(2):
        assert relative_error(comfyui.client.sample(single_pass("wan_t2v", SETTINGS, compiled)), dense) < 1e-5
        graph = single_pass("wan_t2v", SETTINGS, both_orders(compiled, patch)[not psa_last])
        result = comfyui.client.run(graph)
        shown = line(result, graph)
        assert (shown.sparse, shown.reasons["warm-up"]) == (2 * LAYERS, LAYERS)
        assert relative_error(comfyui.client.latent(result), sparse) < 1e-5


@pytest.mark.parametrize("name", ["HunyuanVideo 1.5", "LTX-Video, guide"])
def test_compiled_with_what_graphs_do_not_take(comfyui: ComfyUI, name: str) -> None:
    """One moves a weight within its forward; the graph of the other breaks, and goes on with the options as they were.

    With torch 2.13 ``backend="eager"``, which no node has, takes no such weight, with the patch or without it.
    """
    case, patch = CASES[name], psa(**LEVEL_8_ONLY, unknown_models="video")
    dense, sparse = (comfyui.client.sample(sampled(case.family, other)) for other in (None, patch))
    assert relative_error(sparse, dense) > 1e-4

    for other in (chain(WHOLE, patch), WHOLE, chain(patch, WHOLE)):
        graph = sampled(case.family, other)
        result = comfyui.client.run(graph)
        assert relative_error(comfyui.client.latent(result), dense if other is WHOLE else sparse) < 1e-5
        assert other is WHOLE or line(result, graph).sparse == 2 * case.sparse
