"""The diffusers host beside diffusers' caches: what they answer for is counted, and ages no level map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from psa_core import PSAConfig

diffusers = pytest.importorskip("diffusers", minversion="0.35")

from diffusers.hooks import first_block_cache  # noqa: E402

from psa_core.hosts.diffusers import patch  # noqa: E402
from psa_core.report.report import Report  # noqa: E402

from ...support.diffusers_models import LAYERS, Model, cogvideox_1_0, wan_model  # noqa: E402

FULL = PSAConfig(block_n=32, mask_ratios={1: (0, 1)}, min_tokens=0)
KEPT = FULL.replace(mask_mode="topk", mask_ratios={1: (0, 0.5), 0: (0.5, 1)}, map_steps=3)
BYPASSED = "no call of torch's attention in the layer"
STEPS = 8
_RANGE = {"spatial_attention_block_skip_range": 2, "spatial_attention_timestep_skip_range": (-1, 899.5)}
# Each answers for some of the steps, and wants to know which it is.
CACHES: dict[str, dict[str, Any]] = {
    "PyramidAttentionBroadcastConfig": {**_RANGE, "spatial_attention_block_identifiers": ("blocks",)},
    "FasterCacheConfig": {**_RANGE, "is_guidance_distilled": True},
    "TaylorSeerCacheConfig": {
        "cache_interval": 2, "disable_cache_before_step": 1, "cache_identifiers": [r"blocks\.\d+"],
    },
    "MagCacheConfig": {
        "max_skip_steps": 1, "retention_ratio": 0.0, "num_inference_steps": STEPS, "mag_ratios": [1.0] * STEPS,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def ages(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[int]]:
    """The ages of the level maps of each layer's calls, in the order in which they run."""
    found: dict[int, list[int]] = {layer: [] for layer in range(LAYERS)}
    add_sparse = Report.add_sparse

    def noted(report: Report, step: int, layer: int, *args: Any, **kwargs: Any) -> None:
        add_sparse(report, step, layer, *args, **kwargs)
        found[layer].append(report._unread[-1].map_age)

    monkeypatch.setattr(Report, "add_sparse", noted)
    return found


@pytest.mark.parametrize("make", [wan_model, cogvideox_1_0])
@pytest.mark.parametrize("first", [True, False], ids=["cache first", "patch first"])
def test_layers_that_a_cache_answers_for_are_counted(make: Callable[[], Model], first: bool) -> None:
    model, now = make(), [0.0]
    cache = diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(0, 1000),
        spatial_attention_block_identifiers=("blocks", "transformer_blocks"),
        cross_attention_block_skip_range=None,
        current_timestep_callback=lambda: now[0],
    )
    if first:
        model.transformer.enable_cache(cache)
    with patch(model.transformer, FULL, backend="torch") as handle:
        if not first:
            model.transformer.enable_cache(cache)
        for now[0] in (900, 800, 700, 600):
            model(now[0])
        model.transformer.disable_cache()
        model(500)
    answered = handle.report.dense_reasons
    assert set(answered) == {BYPASSED}
    assert answered[BYPASSED] >= LAYERS
    assert handle.report.sparse_count + handle.report.dense_count == 5 * LAYERS
    assert [call.layer for call in handle.report.sparse_calls() if call.step == 4] == list(range(LAYERS))


@pytest.mark.parametrize("name", CACHES)
def test_steps_that_a_cache_answers_for_age_no_map(name: str, ages: dict[int, list[int]]) -> None:
    if not hasattr(diffusers, name):
        pytest.skip(f"this diffusers has no {name}")
    settings, now = CACHES[name], [0.0]
    if settings.keys() & _RANGE.keys():
        settings = {**settings, "current_timestep_callback": lambda: now[0]}
    model = wan_model()
    model.transformer.enable_cache(getattr(diffusers, name)(**settings))
    with patch(model.transformer, KEPT, backend="torch"):
        for step in range(STEPS):
            now[0] = 900.0 - step
            with model.transformer.cache_context("cond"):
                model(now[0])
    for calls in ages.values():
        assert 3 < len(calls) < STEPS
        assert calls == [call % KEPT.map_steps for call in range(len(calls))]


def test_steps_that_first_block_cache_answers_for_age_no_map(
    monkeypatch: pytest.MonkeyPatch, ages: dict[int, list[int]]
) -> None:
    model, computed, now = wan_model(), (True, False, False, True, True, False, True), iter(range(99))
    monkeypatch.setattr(
        first_block_cache.FBCHeadBlockHook, "_should_compute_remaining_blocks", lambda *_: computed[next(now)]
    )
    model.transformer.enable_cache(first_block_cache.FirstBlockCacheConfig(threshold=0.1))
    with patch(model.transformer, KEPT, backend="torch") as handle:
        for step in range(len(computed)):
            with model.transformer.cache_context("cond"):
                model(900.0 - step)
    assert ages == {0: [0, 1, 2, 0, 1, 2, 0], 1: [0, 1, 2, 0]}
    assert handle.report.dense_count == 0
