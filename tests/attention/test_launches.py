"""What a call launches on a GPU once its map is kept, counted with kernels that are not run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from psa_core import PSAConfig
from psa_core.attention.steps import sparse_attention, trial_of
from psa_core.ops import compiling
from psa_core.settings.sinks import text_in_front

from ..support.tensors import DEVICE, Shape, random_qkv
from .test_trial import needs_triton

GRID, TEXT = (2, 8, 8), 3
CONFIG = PSAConfig(block_m=64, block_n=32, importance="mean")
# Operators of torch that launch nothing, or that others below them launch for.
QUIET = {
    "as_strided", "clone", "contiguous", "detach", "empty", "empty_like", "empty_strided", "expand", "new_empty",
    "new_zeros", "select", "slice", "to", "_to_copy", "transpose", "unflatten", "unsqueeze", "view", "zeros",
}  # fmt: skip


class Launches(list[str]):
    """In place of what compiles kernels ahead: their names, and none is run."""

    # None is compiled beside those that are launched.
    threads = 1

    def compile(self, kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        self.append(kernel.fn.__name__)


@contextmanager
def kernels_off() -> Iterator[Launches]:
    launches = Launches()
    compiling._thread.compiler = launches
    try:
        yield launches
    finally:
        compiling._thread.compiler = None


@contextmanager
def counted() -> Iterator[Launches]:
    with kernels_off() as launches, profile(activities=[ProfilerActivity.CPU]) as profiler:
        yield launches
    operators = [event.name.removeprefix("aten::") for event in profiler.events() if event.name.startswith("aten::")]
    launches += [name for name in operators if name not in QUIET]


counts = pytest.mark.skipif(DEVICE.type != "cpu", reason="counted without a GPU")


@needs_triton
@counts
@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("bf16", ["_pool", "_list_blocks", "_pyramid_attention"]),
        ("int8", ["_list_blocks", "_measure_channels", "_pack", "_quantised_attention", "zero_"]),
        # Exact heads have pooled keys of their own.
        ("auto", ["_list_blocks", "_measure_channels", "_pack", "_pool", "_quantised_attention", "zero_"]),
    ],
)
def test_a_kept_map_leaves_six_launches_at_the_most(
    precision: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSA_BACKEND", "portable")
    call = *random_qkv(Shape(1, 1, 131, 131, 64), torch.float16), CONFIG.replace(precision=precision), GRID
    call = *call, text_in_front(TEXT), None, "triton"
    first = sparse_attention(*call)
    first.info()
    kept = {"level_map": first.level_map, "exact_heads": first.exact_heads}
    assert torch.equal(sparse_attention(*call, **kept).out, first.out)
    with counted() as launches:
        later = sparse_attention(*call, **kept)
        later.info()
    assert sorted(launches) == sorted(expected)


@needs_triton
@counts
@pytest.mark.parametrize("batch", [1, 2])
def test_orders_of_a_batch_entry_have_one_launch_together(batch: int) -> None:
    q, k, v = random_qkv(Shape(batch, 2, 131, 131, 64), torch.float16)
    config = CONFIG.replace(mask_mode="calibrated")
    trial = trial_of(q, k, v, config, GRID, text_in_front(TEXT), None, "triton")
    trials = trial.in_orders([trial.one_order(name) for name in trial.orders])
    assert len(trials) == 4
    with kernels_off() as launches:
        trial.importance(trials, "sampled_max")
    assert launches.count("_sampled") == batch
