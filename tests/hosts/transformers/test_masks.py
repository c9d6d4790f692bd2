"""Deferred masks: what they say when somebody looks, and that nobody has to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Qwen3Config
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask

from psa_core.hosts import transformers as host
from psa_core.hosts.transformers.masks import FEWEST_QUERIES, Deferred, Rows


@pytest.fixture(autouse=True)
def _named():
    host.implementation.Registration.add()
    yield
    host.implementation.Registration.remove()


def mask(padding: torch.Tensor | None, queries: int, past: int, implementation: str) -> Any:
    """What transformers makes for so many queries behind a past, with a cache that holds it."""
    config = Qwen3Config(num_hidden_layers=1, layer_types=["full_attention"])
    config._attn_implementation = implementation
    embeds = torch.zeros(len(padding) if padding is not None else 1, queries, 8)
    cache = DynamicCache()
    if past:
        cache.update(torch.zeros(len(embeds), 1, past, 8), torch.zeros(len(embeds), 1, past, 8), 0)
    places = torch.arange(past, past + queries)
    try:
        return create_causal_mask(config, embeds, padding, cache, position_ids=places[None])
    except TypeError:  # transformers 4
        return create_causal_mask(config, embeds, padding, places, cache)


PADDING = torch.tensor([[1] * 150, [0] * 40 + [1] * 110, [1] * 120 + [0] * 30])


@pytest.mark.parametrize(("padding", "past"), [(None, 50), (PADDING, 0), (PADDING, 50)])
def test_read_it_is_the_mask_of_sdpa(padding: torch.Tensor | None, past: int) -> None:
    deferred = mask(padding, 150 - past, past, "psa")
    assert isinstance(deferred, Deferred)
    made = mask(padding, 150 - past, past, "eager") == 0
    assert deferred.shape == made.shape
    assert torch.equal(deferred | False, made)
    assert torch.equal(deferred[:, :, 3:7].clone(), made[:, :, 3:7])


def test_there_is_none_where_sdpa_has_none() -> None:
    for padding in (None, torch.ones_like(PADDING)):
        assert mask(padding, 150, 0, "psa") is mask(padding, 150, 0, "sdpa") is None


def test_rows_are_without_padding() -> None:
    deferred = mask(PADDING, 100, 50, "psa")
    assert deferred.past == 50
    assert deferred.rows == [
        Rows([0], slice(0, 100), slice(0, 150)),
        Rows([1], slice(0, 100), slice(40, 150)),
        Rows([2], slice(0, 70), slice(0, 120)),
    ]


def test_moving_it_computes_nothing() -> None:
    deferred = mask(PADDING, 150, 0, "psa")
    moved = deferred.to("meta", non_blocking=True)
    assert isinstance(moved, Deferred)
    assert moved.device.type == "meta"
    assert deferred.contiguous() is deferred


def test_few_queries_have_their_mask_at_once() -> None:
    few = FEWEST_QUERIES - 1
    assert not isinstance(mask(PADDING, few, 150 - few, "psa"), Deferred)
