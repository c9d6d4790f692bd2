"""The diffusers host beside diffusers' own ways to change attention: backends, processors, fusing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from psa_core import PSAConfig

pytest.importorskip("diffusers", minversion="0.35")

from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    attention_backend,
    dispatch_attention_fn,
)

from psa_core.hosts.diffusers import patch

from ...support.diffusers_models import LAYERS, Model, cogvideox_1_0, wan_model
from ...support.tensors import relative_error

FULL = PSAConfig(block_n=32, mask_ratios={1: (0, 1)}, min_tokens=0)
WARM_UP = FULL.replace(warmup_steps=1)
BYPASSED = "no call of torch's attention in the layer"
MATH = AttentionBackendName("_native_math")


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def math_calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The queries of all calls that reach diffusers' math backend."""
    calls: list[torch.Tensor] = []
    original = _AttentionBackendRegistry._backends[MATH]

    def spy(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(query)
        return original(query, *args, **kwargs)

    monkeypatch.setitem(_AttentionBackendRegistry._backends, MATH, spy)
    # Choosing a backend for a model chooses it for all others too.
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", _AttentionBackendRegistry._active_backend)
    return calls


def check_math(model: Model, math_calls: list[torch.Tensor]) -> None:
    """See that dense calls go to the math backend, and sparse calls to none; cross-attention is dense always."""
    math_calls.clear()
    model(900)
    assert len(math_calls) == 2 * LAYERS
    model(500)
    assert len(math_calls) == 3 * LAYERS


def test_a_backend_chosen_before_patching_gets_what_stays_dense(math_calls: list[torch.Tensor]) -> None:
    model = wan_model()
    model.transformer.set_attention_backend("_native_math")
    dense = model(900)
    with patch(model.transformer, WARM_UP, backend="torch"):
        check_math(model, math_calls)
        assert torch.equal(model(900), dense)
    assert torch.equal(model(900), dense)


def test_a_backend_chosen_while_patched_gets_what_stays_dense_and_is_kept(math_calls: list[torch.Tensor]) -> None:
    model = wan_model()
    with patch(model.transformer, WARM_UP, backend="torch"):
        model(900)
        assert not math_calls
        model.transformer.set_attention_backend("_native_math")
        check_math(model, math_calls)
    assert {processor._attention_backend for processor in model.processors()} == {MATH}


def test_a_backend_chosen_for_a_while(math_calls: list[torch.Tensor]) -> None:
    model = wan_model()
    with patch(model.transformer, WARM_UP, backend="torch"):
        with attention_backend("_native_math"):
            check_math(model, math_calls)
        math_calls.clear()
        model(900)
        assert not math_calls


def test_a_backend_chosen_by_its_name_alone(math_calls: list[torch.Tensor]) -> None:
    model = wan_model()
    for processor in model.processors():
        processor._attention_backend = "_native_math"
    with patch(model.transformer, WARM_UP, backend="torch"):
        check_math(model, math_calls)


class Processor:
    """Somebody's own: attention of the hidden states with themselves, in as many heads as the module has.

    Args:
        attend: queries, keys and values ``[B, L, H, D]`` -> the same.
    """

    def __init__(self, attend: Callable[..., torch.Tensor]) -> None:
        self._attend = attend

    def __call__(self, attention: Any, hidden_states: torch.Tensor, *rest: Any, **more: Any) -> Any:
        heads = hidden_states.unflatten(2, (attention.heads, -1))
        return self._attend(heads, heads, heads).flatten(2)


def torch_attention(*heads: torch.Tensor) -> torch.Tensor:
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in heads)).transpose(1, 2)


@pytest.mark.parametrize("attend", [torch_attention, dispatch_attention_fn])
def test_processors_that_come_while_patched_run_through_psa(attend: Callable[..., torch.Tensor]) -> None:
    model, processor = wan_model(), Processor(attend)
    with patch(model.transformer, FULL, backend="torch") as handle:
        for block in model.blocks:
            block.attn1.set_processor(processor)
        patched = model()
        assert (handle.report.sparse_count, handle.report.dense_count) == (LAYERS, 0)
    assert all(block.attn1.processor is processor for block in model.blocks)
    assert relative_error(patched, model()) < 1e-4


def test_processors_that_dispatch_past_torch_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wan_model()
    monkeypatch.setitem(_AttentionBackendRegistry._backends, MATH, lambda query, **kwargs: query)
    with patch(model.transformer, FULL, backend="torch") as handle:
        for block in model.blocks:
            block.attn1.set_processor(Processor(dispatch_attention_fn))
        with attention_backend("_native_math"):
            model()
        assert handle.report.dense_reasons == {BYPASSED: LAYERS}


def test_context_parallelism_stays_dense_with_the_backend_that_it_has() -> None:
    seen = []

    class Parallel(Processor):
        """As diffusers' processors once parallelism is enabled."""

        _attention_backend = None
        _parallel_config = object()

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(self._attention_backend)
            return super().__call__(*args, **kwargs)

    model = wan_model()
    for block in model.blocks:
        block.attn1.set_processor(Parallel(torch_attention))
    dense = model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        assert torch.equal(model(), dense)
    assert handle.report.dense_reasons == {"context parallelism": LAYERS}
    assert seen == [None] * 2 * LAYERS


@pytest.mark.parametrize("make", [wan_model, cogvideox_1_0])
def test_projections_fused_before_patching_may_part_while_patched(make: Callable[[], Model]) -> None:
    model = make()
    model.transformer.fuse_qkv_projections()
    fused = model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        assert relative_error(model(), fused) < 1e-4
        model.transformer.unfuse_qkv_projections()
        apart = model(500)
        assert (handle.report.sparse_count, handle.report.dense_count) == (2 * LAYERS, 0)
    assert relative_error(apart, model(500)) < 1e-4
