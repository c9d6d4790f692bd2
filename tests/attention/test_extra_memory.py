"""``max_extra_memory``: the same result, bit for bit, in less memory."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from psa_core import PSAConfig, RadialMask, pyramid_sparse_attention
from psa_core.attention import chunks
from psa_core.attention.chunks import cut_heads, join
from psa_core.attention.extra_memory import ExtraMemory, extra_memory
from psa_core.attention.steps import sparse_attention, trial_of
from psa_core.hosts.kept import Kept
from psa_core.hosts.place import Place
from psa_core.ops.precision import precision_that_runs
from psa_core.settings.sinks import text_in_front

from ..ops.test_gpu import CUDA, from_projections
from ..support.tensors import Shape, random_levels, random_qkv
from .test_launches import kernels_off
from .test_trial import needs_triton, tensors

GIB = 2**30
GRID, TEXT = (2, 8, 8), 3
SHAPE = Shape(2, 3, 131, 131, 64, 64, 32)
SIZES = {"block_m": 64, "block_n": 32}
CALIBRATED = PSAConfig(mask_mode="calibrated", **SIZES)
RADIAL = RadialMask(decay_factor=0.5, block_size=32)
CONFIGS = {
    "by importance": PSAConfig(importance="mean", use_sim_mask=True, **SIZES),
    "calibrated": CALIBRATED,
    "calibrated to an error": CALIBRATED.replace(target_error=0.3),
    "orders by content": CALIBRATED.replace(candidate_orders=("Raster", "Semantic", "Hybrid")),
    "one order by content": PSAConfig(rearrange_method="Semantic", **SIZES),
    "under a mask": CALIBRATED.replace(radial=RADIAL.replace(mode="intersect")),
    "a mask alone": PSAConfig(radial=RADIAL, **SIZES),
}
KERNELS = {
    "calibrated": CALIBRATED.replace(candidate_orders=("Semantic",), precision="auto"),
    "by importance": PSAConfig(importance="mean", precision="int8", **SIZES),
    "a mask alone": PSAConfig(radial=RADIAL, precision="int8+fp8", **SIZES),
}


def bounded(
    config: PSAConfig, at_once: int, qkv: tuple[torch.Tensor, ...], backend: str,
    grid: tuple[int, int, int] = GRID, text: int = TEXT,
) -> PSAConfig:  # fmt: skip
    """The config with room for so many heads at a time."""
    config = config.replace(max_extra_memory=1.0)
    trial = trial_of(*qkv, config, grid, text_in_front(text), None, backend)
    needed = extra_memory(*qkv, config, 32, len(trial.orders), backend)
    return config.replace(max_extra_memory=(needed.always + needed.a_head * (at_once + 0.01)) / GIB)


def check_same(
    config: PSAConfig, at_once: int, qkv: tuple[torch.Tensor, ...], backend: str, **extra: Any
) -> None:  # fmt: skip
    call = {"grid": GRID, "text_length": TEXT, "backend": backend, **extra, "return_info": True}
    out, info = pyramid_sparse_attention(*qkv, config, **call)
    of_chunks, info_of_chunks = pyramid_sparse_attention(*qkv, bounded(config, at_once, qkv, backend), **call)
    assert torch.equal(of_chunks, out)
    assert of_chunks.transpose(1, 2).is_contiguous()
    assert torch.equal(info_of_chunks.levels, info.levels)
    torch.testing.assert_close(info_of_chunks.level_shares, info.level_shares)
    assert info_of_chunks.precision == info.precision
    if info.choice is not None and info_of_chunks.choice is not None:
        assert info_of_chunks.choice.recipes == info.choice.recipes
        assert torch.equal(info_of_chunks.choice.of_head, info.choice.of_head)
        # Torch's sums may round otherwise over other heads.
        torch.testing.assert_close(info_of_chunks.choice.errors, info.choice.errors)


class TestTheSameResult:
    @pytest.mark.parametrize("at_once", [1, 4])
    @pytest.mark.parametrize("name", CONFIGS)
    def test_in_plain_torch(self, name: str, at_once: int) -> None:
        check_same(CONFIGS[name], at_once, tensors(SHAPE), "torch")

    @pytest.mark.parametrize("heads", [1, 3])
    def test_under_static_levels(self, heads: int) -> None:
        check_same(CALIBRATED, 2, tensors(SHAPE), "torch", static_levels=random_levels(SHAPE)[:, :heads])

    @needs_triton
    @pytest.mark.parametrize("name", KERNELS)
    def test_of_kernels(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PSA_BACKEND", "portable")
        qkv = tensors(SHAPE._replace(batch=1, heads=2), torch.float16)
        # A head whose logits are so large that INT8 is too coarse for it.
        qkv[0][:, 1] *= 40
        check_same(KERNELS[name], 1, qkv, "triton")

    def test_of_kept_maps(self) -> None:
        qkv = tensors(SHAPE)
        config = CALIBRATED.replace(map_steps=3)
        place = [Place(step, 0, GRID, text_in_front(TEXT)) for step in range(5)]
        kept, kept_in_chunks = Kept(), Kept()
        for here in place:
            whole = kept.attend(*qkv, config, here, "torch")
            parts = kept_in_chunks.attend(*qkv, bounded(config, 2, qkv, "torch"), here, "torch")
            assert torch.equal(parts.attended.out, whole.attended.out)
            assert parts.map_age == whole.map_age == here.step % 3

    def test_with_gradients(self) -> None:
        config = PSAConfig(**SIZES)
        whole, parts = (tuple(x.detach().requires_grad_() for x in qkv) for qkv in (tensors(SHAPE),) * 2)
        pyramid_sparse_attention(*whole, config).square().sum().backward()
        pyramid_sparse_attention(*parts, bounded(config, 1, whole, "torch")).square().sum().backward()
        for x, y in zip(whole, parts, strict=True):
            torch.testing.assert_close(x.grad, y.grad)


class TestChunks:
    @pytest.mark.parametrize("at_once", range(8))
    def test_they_make_up_the_whole(self, at_once: int) -> None:
        x = torch.randn(2, 3, 4)
        cut = cut_heads(2, 3, at_once)
        assert all(chunk.of(x)[..., 0].numel() <= max(1, at_once) for chunk in cut)
        assert torch.equal(join(((chunk, chunk.of(x)) for chunk in cut), 2, 3), x)

    def test_an_extent_of_one_serves_all(self) -> None:
        (first, *_) = cut_heads(2, 3, 1)
        assert first.of(torch.zeros(1, 3)).shape == first.of(torch.zeros(2, 1)).shape == (1, 1)

    def test_too_little_for_one_head_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        chunks._warn.cache_clear()
        caplog.set_level(logging.WARNING)
        for _ in range(2):
            assert len(chunks.chunks_for(0.25, ExtraMemory(GIB, GIB), 1, 3)) == 3
        (record,) = caplog.records
        assert record.getMessage() == "PSA: max_extra_memory 0.25 GiB is too little: one head at a time takes 2 GiB"


def peak(call: Callable[[], object]) -> int:
    """Bytes that a call has at once, those of its result among them."""
    call()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.skipif(torch.cuda.is_available(), reason="measured on a CPU")
@pytest.mark.parametrize("name", ["calibrated", "one order by content"])
def test_plain_torch_keeps_to_the_bound(name: str) -> None:
    shape = Shape(1, 6, 515, 515, 64, 64, 32)
    q, k, v = random_qkv(shape)
    grid = (4, 16, 8)

    def extra(config: PSAConfig) -> int:
        call = q, k, v, config, grid, text_in_front(TEXT), None, "torch"
        return peak(lambda: sparse_attention(*call)) - q.nbytes

    config = bounded(CONFIGS[name], 2, (q, k, v), "torch")
    in_chunks = extra(config)
    assert in_chunks <= config.max_extra_memory * GIB
    assert in_chunks < extra(CONFIGS[name])


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="measured on a CPU")
@pytest.mark.parametrize("precision", ["bf16", "auto"])
@pytest.mark.parametrize("name", ["by importance", "calibrated"])
def test_what_kernels_are_given_keeps_to_the_bound(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSA_BACKEND", "portable")
    q, k, v = random_qkv(Shape(2, 3, 1040, 1040, 64), torch.float16)
    config = CONFIGS[name].replace(precision=precision)
    precision_that_runs(precision, q.device, q.dtype, 64)

    def extra(config: PSAConfig) -> int:
        call = q, k, v, config, (4, 13, 20), (), None, "triton"
        return peak(lambda: sparse_attention(*call)) - q.nbytes

    with kernels_off():
        least, most = (bounded(config, at_once, (q, k, v), "triton", (4, 13, 20), 0) for at_once in (1, 4))
        assert extra(most) <= most.max_extra_memory * GIB
        assert extra(least) <= min(least.max_extra_memory * GIB, 0.7 * extra(config))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "int8", "int8+fp8"])
@pytest.mark.parametrize("mask_mode", ["thresholdbound", "calibrated"])
def test_kernels_keep_to_the_bound(mask_mode: str, precision: str) -> None:
    grid = (8, 30, 52)
    tokens = math.prod(grid)
    q, k, v = from_projections(Shape(2, 12, tokens, tokens, 128), torch.bfloat16)
    config = PSAConfig(mask_mode=mask_mode, precision=precision)

    def call(config: PSAConfig) -> tuple[torch.Tensor, int]:
        sparse_attention(q, k, v, config, grid, (), None, "triton")
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(CUDA)
        torch.cuda.reset_peak_memory_stats(CUDA)
        out = sparse_attention(q, k, v, config, grid, (), None, "triton").out
        return out, torch.cuda.max_memory_allocated(CUDA) - before - out.nbytes

    out, unbounded = call(config)
    for share in (0.6, 0.25):
        bound = share * unbounded
        of_chunks, extra = call(config.replace(max_extra_memory=bound / GIB))
        assert torch.equal(of_chunks, out)
        assert extra <= bound
