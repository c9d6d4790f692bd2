"""The diffusers host under torch.compile: as without it, in one graph for all layers, steps and patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from psa_core import PSAConfig

pytest.importorskip("diffusers", minversion="0.35")

from psa_core.hosts.diffusers import Handle, patch

from ...support import diffusers_models
from ...support.diffusers_families import hunyuan_video
from ...support.diffusers_models import LAYERS, Model, cogvideox_1_5, wan_model
from ...support.tensors import relative_error

SPARSE = PSAConfig(
    block_n=32, mask_ratios={1: (0, 0.3), 2: (0.3, 0.5), 4: (0.5, 0.6), 0: (0.6, 1)}, min_tokens=0, warmup_steps=2
)
TIMESTEPS = (900, 900, 800, 700, 700, 600)  # two of them twice: with and without prompt

some_models = pytest.mark.parametrize("make", [wan_model, cogvideox_1_5])


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


class Graphs:
    """A backend of torch.compile that counts what it is given.

    Args:
        backend: what compiles.
    """

    def __init__(self, backend: str = "aot_eager") -> None:
        self.count = 0
        self._compile: Any = torch._dynamo.lookup_backend(backend)

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        self.count += 1
        return self._compile(graph, inputs)


def run(model: Model) -> list[torch.Tensor]:
    return [model(timestep) for timestep in TIMESTEPS]


def same(outputs: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return all(relative_error(x, y) < 1e-5 for x, y in zip(outputs, expected, strict=True))


def counts(handle: Handle) -> tuple[dict[str, int], list[Any]]:
    return dict(handle.report.dense_reasons), [tuple(call) for call in handle.report.sparse_calls()]


def uncompiled(model: Model, config: PSAConfig = SPARSE) -> tuple[list[torch.Tensor], Any]:
    with patch(model.transformer, config, backend="torch") as handle:
        return run(model), counts(handle)


def compile_blocks(model: Model, graphs: Graphs) -> None:
    if getattr(model.transformer, "_repeated_blocks", None):
        model.transformer.compile_repeated_blocks(fullgraph=True, backend=graphs)
    else:
        for block in model.blocks:
            block.compile(fullgraph=True, backend=graphs)


def compile_with_breaks(model: Model, graphs: Graphs) -> None:
    model.transformer = torch.compile(model.transformer, backend=graphs)


def compile_whole(model: Model, graphs: Graphs) -> None:
    model.transformer = torch.compile(model.transformer, fullgraph=True, backend=graphs)


every_way = pytest.mark.parametrize("compile_it", [compile_blocks, compile_whole, compile_with_breaks])


@some_models
@every_way
def test_compiled_while_patched_is_as_without_compiling(
    make: Callable[[], Model], compile_it: Callable[[Model, Graphs], None]
) -> None:
    model, graphs = make(), Graphs()
    expected, expected_counts = uncompiled(model)
    assert expected_counts[0] == {"warm-up": 3 * LAYERS}
    assert len(expected_counts[1]) == 3 * LAYERS
    handle = patch(model.transformer, SPARSE, backend="torch")
    compile_it(model, graphs)
    for _ in range(2):
        assert same(run(model), expected)
        assert counts(handle) == expected_counts


@some_models
@every_way
def test_compiled_before_patching_may_be_patched_restored_and_patched_again(
    make: Callable[[], Model], compile_it: Callable[[Model, Graphs], None]
) -> None:
    model, graphs = make(), Graphs("eager")
    dense = run(model)
    expected, expected_counts = uncompiled(model)
    no_warm_up, no_warm_up_counts = uncompiled(model, SPARSE.replace(warmup_steps=0))
    compile_it(model, graphs)
    assert same(run(model), dense)
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        assert same(run(model), expected)
        assert counts(handle) == expected_counts
    compiled = graphs.count
    assert same(run(model), dense)
    older = patch(model.transformer, SPARSE, backend="torch")
    newer = patch(model.transformer, SPARSE.replace(warmup_steps=0), backend="torch")
    assert same(run(model), no_warm_up)
    assert (counts(newer), counts(older)) == (no_warm_up_counts, ({}, []))
    assert graphs.count == compiled


@pytest.mark.parametrize("make", [wan_model, cogvideox_1_5])
def test_layers_share_a_graph_however_many_they_are(make: Callable[[], Model], monkeypatch) -> None:
    layers = torch._dynamo.config.recompile_limit + 2
    monkeypatch.setattr(diffusers_models, "LAYERS", layers)
    model, graphs = make(), Graphs("eager")
    compile_blocks(model, graphs)
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        run(model)
    assert handle.report.sparse_count == 3 * layers
    # The first block of CogVideoX gets a tensor of other strides than its successors.
    assert graphs.count == (1 if make is wan_model else 2)


def test_padding_is_read_when_a_graph_runs() -> None:
    model, graphs = hunyuan_video(), Graphs("eager")
    expected, expected_counts = uncompiled(model)
    assert len(expected_counts[1]) == 3 * LAYERS
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        compile_whole(model, graphs)
        assert same(run(model), expected)
        assert counts(handle) == expected_counts
        compiled = graphs.count
        model.inputs["encoder_attention_mask"].fill_(1)
        assert not same(run(model), expected)
    assert graphs.count == compiled


def test_a_forward_pass_inside_a_graph_counts_its_step_before_its_layers() -> None:
    model, graphs = wan_model(), Graphs()
    expected, expected_counts = uncompiled(model)

    @torch.compile(fullgraph=True, backend=graphs)
    def denoise(timestep: torch.Tensor) -> torch.Tensor:
        return model.transformer(timestep=timestep, return_dict=False, **model.inputs)[0] + 0

    with patch(model.transformer, SPARSE, backend="torch") as handle:
        assert same([denoise(torch.full((2,), timestep)) for timestep in TIMESTEPS], expected)
    assert counts(handle) == expected_counts
    assert graphs.count == 1


def test_dense_calls_use_the_chosen_attention_backend(monkeypatch) -> None:
    from psa_core.hosts.diffusers import attention as host_attention

    model, used = wan_model(), []
    chosen = host_attention.AttentionBackendName("_native_math")
    original = host_attention.dispatch_attention_fn

    def dispatch(*args: Any, backend: Any, **kwargs: Any) -> torch.Tensor:
        used.append(backend)
        return original(*args, backend=backend, **kwargs)

    monkeypatch.setattr(host_attention, "dispatch_attention_fn", dispatch)
    compile_blocks(model, Graphs())
    with patch(model.transformer, SPARSE, backend="torch"):
        run(model)
        assert used == [None] * 3 * LAYERS
        for block in model.blocks:
            block.attn1.processor._attention_backend = chosen
        run(model)
    assert used[3 * LAYERS :] == [chosen] * 3 * LAYERS
    assert {block.attn1.processor._attention_backend for block in model.blocks} == {chosen}


def test_what_is_seen_while_compiling_is_counted_at_every_call() -> None:
    model = wan_model()
    first = model.blocks[0]
    first.attn1.set_processor(OnesProcessor())
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        expected = first.attn1(torch.ones(1, 5, 128))
        compiled = torch.compile(first.attn1, fullgraph=True, backend="aot_eager")
        for _ in range(3):
            assert torch.equal(compiled(torch.ones(1, 5, 128)), expected)
    assert handle.report.dense_reasons == {"no call of torch's attention in the layer": 4}


class OnesProcessor:
    """Has no call of torch's attention."""

    def __call__(self, attention: Any, hidden_states: torch.Tensor, *rest: Any) -> torch.Tensor:
        return torch.ones_like(hidden_states)


@pytest.mark.gpu
@some_models
def test_kernels_in_compiled_blocks(make: Callable[[], Model]) -> None:
    model = make().to("cuda", torch.bfloat16)
    dense = run(model)
    with patch(model.transformer, SPARSE.replace(mask_ratios={1: (0, 1)}), backend="triton") as handle:
        patched, patched_counts = run(model), counts(handle)
        for block in model.blocks:
            block.compile(fullgraph=True)
        compiled = run(model)
    assert counts(handle) == patched_counts
    assert handle.report.sparse_count == 3 * LAYERS
    for outputs in (patched, compiled):
        assert all(relative_error(x, y) < 0.05 for x, y in zip(outputs, dense, strict=True))


def test_gradients_and_attention_masks_stay_dense() -> None:
    model, graphs = wan_model(), Graphs()
    compile_blocks(model, graphs)
    attention, tokens = model.blocks[0].attn1, torch.randn(1, 5, 128)
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        masked = torch.compile(attention, fullgraph=True, backend=graphs)
        with torch.enable_grad():
            for _ in range(2):
                model().sum().backward()
        for _ in range(2):
            masked(tokens, None, torch.ones(1, 1, 5, 5, dtype=torch.bool).tril(), None)
    assert {reason.split(" (")[0]: count for reason, count in handle.report.dense_reasons.items()} == {
        "gradients are on": 2 * LAYERS,
        "attention mask": 2,
    }
    assert attention.to_q.weight.grad is not None
