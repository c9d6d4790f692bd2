"""What a call was given and gave goes when it has ended: no lack of GPU memory makes Python look for circles."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch

from psa_core import PSAConfig, RadialMask
from psa_core.hosts.place import Place
from psa_core.hosts.run import Run
from psa_core.ops.backends import triton_installed

from ..support.tensors import Shape, random_qkv

GRID, STEPS = (4, 8, 8), 5
SMALL = PSAConfig(block_m=64, block_n=32, min_tokens=0)
KEPT = SMALL.replace(mask_mode="topk", map_steps=2)
CALIBRATED = SMALL.replace(mask_mode="calibrated", target_density=0.3, map_steps=4)
SETTINGS = {
    "a map in each call": SMALL,
    "kept": KEPT,
    "in chunks": KEPT.replace(max_extra_memory=1e-4),
    "capped": KEPT.replace(use_sim_mask=True),
    "radial": KEPT.replace(radial=RadialMask()),
    "by content": KEPT.replace(use_rearrange=True, rearrange_method="Semantic"),
    "calibrated": CALIBRATED,
    "calibrated in chunks": CALIBRATED.replace(max_extra_memory=1e-4),
    "by error": CALIBRATED.replace(target_density=None, target_error=0.1),
}


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def check_released(run: Run, dtype: torch.dtype = torch.float32, causal: bool = False) -> None:
    for step in range(STEPS):
        q, k, v = random_qkv(Shape(1, 2, 256, 256), dtype)
        out = run.attend(q, k, v, Place(step, 0, GRID, steps=STEPS, causal=causal))
        tensors = [weakref.ref(x) for x in (q, k, v, out)]
        del q, k, v, out
        assert [x() for x in tensors] == [None] * 4, f"step {step}"
    assert run.report.sparse_count == STEPS


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_tensors_go_with_the_call(name: str, causal: bool, no_collection: None) -> None:
    config = SETTINGS[name]
    if causal and (config.radial is not None or config.order == "Semantic"):
        pytest.skip("of videos")
    check_released(Run(config, backend="torch", measure_errors=True), causal=causal)


@pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
def test_tensors_go_with_a_call_of_kernels(no_collection: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of heads that ``precision: auto`` tries, too."""
    monkeypatch.setenv("PSA_BACKEND", "portable")
    run = Run(KEPT.replace(importance="mean", precision="auto"), backend="triton")
    check_released(run, torch.float16)
    assert "int8" in run.report.line()
