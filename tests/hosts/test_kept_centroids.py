"""Centroids of clusters, from which those of a run's next map start."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from psa_core import PSAConfig
from psa_core.attention import trial as trial_module
from psa_core.hosts.kept import Kept
from psa_core.hosts.run import Run

from .test_kept import CALIBRATED, FIXED, at, call, maps, qkv

SEMANTIC = FIXED.replace(rearrange_method="Semantic")


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the clusterings started from."""
    started: list[Any] = []

    def cluster(q: Any, k: Any, start: Any) -> Any:
        started.append(start)
        return clustered(q, k, start)

    clustered = trial_module.cluster_content
    monkeypatch.setattr(trial_module, "cluster_content", cluster)
    return started


@pytest.mark.parametrize("map_steps", [1, 2])
@pytest.mark.parametrize("config", [SEMANTIC, CALIBRATED.replace(candidate_orders=("Raster", "Semantic"))])
def test_each_map_starts_from_those_of_the_one_before(config: PSAConfig, map_steps: int, starts: list[Any]) -> None:
    kept, made = Kept(), []
    for step in range(4):
        made.append(call(kept, qkv(), at(step), config.replace(map_steps=map_steps)).attended.level_map)
    maps_made = made[::map_steps]
    assert [start is None for start in starts] == [True] + [False] * (len(maps_made) - 1)
    for start, before in zip(starts[1:], maps_made, strict=False):
        assert start is before.centroids


def test_layers_and_windows_have_their_own(starts: list[Any]) -> None:
    kept = Kept()
    for step in range(2):
        for layer, window in ((0, (0, 1)), (1, (0, 1)), (0, (step + 2,))):
            call(kept, qkv(), at(step, layer, window=window), SEMANTIC.replace(map_steps=1))
    assert [start is None for start in starts] == [True] * 3 + [False, False, True]
    assert len(kept._maps.centroids) == 4
    call(kept, qkv(), at(2, 0, window=(0, 1)), SEMANTIC)
    assert len(kept._maps.centroids) == 3, "of windows that the step before had not"


def test_both_prompts_of_a_batch_share_an_order() -> None:
    q, k, v = qkv(2)
    kept = Kept()
    both = call(kept, (q, k, v), at(0, conditions=2), SEMANTIC).attended
    assert both.level_map is not None
    assert torch.equal(*both.level_map.levels)
    first = call(Kept(), (q[:1], k[:1], v[:1]), at(0), SEMANTIC).attended
    assert torch.equal(both.out[:1], first.out)


def test_go_with_the_run_and_its_last_step() -> None:
    run = Run(SEMANTIC, "torch")
    for step in range(2):
        run.attend(*qkv(), at(step, steps=4))
    assert len(run._kept._maps.centroids) == 1
    run.let_go()
    assert run._kept._maps.centroids == {}
    run = Run(SEMANTIC, "torch")
    for step in range(3):
        run.attend(*qkv(), at(step, steps=3))
    assert run._kept._maps.centroids == {}


def test_orders_count_as_memory_of_maps() -> None:
    map_of, size = call(Kept(), qkv(), at(0), SEMANTIC).attended.level_map, 2 * 2 * 256 * 4
    assert map_of is not None
    assert map_of.nbytes == 2 * 2 * 8 + size
    kept = Kept(map_memory=size / 2**30)
    call(kept, qkv(), at(0), SEMANTIC)
    assert maps(kept) == 0
