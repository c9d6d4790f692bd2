"""Copies of a patched transformer: they are not patched, and what becomes of them is nothing to the original."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from psa_core import PSAConfig

pytest.importorskip("diffusers", minversion="0.35")

from psa_core.hosts.diffusers import patch

from ...support.diffusers_models import LAYERS, Model, cogvideox_1_5, wan_model

SPARSE = PSAConfig(block_n=32, mask_ratios={1: (0, 0.3), 2: (0.3, 0.5), 0: (0.5, 1)}, min_tokens=0)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def saved_and_loaded(x: Any) -> Any:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def twin(model: Model, way: Callable[[Any], Any]) -> Model:
    """The same inputs for a copy of the transformer."""
    other = copy.copy(model)
    other.transformer = way(model.transformer)
    return other


def attentions(model: Model) -> list[type]:
    return [type(block.attn1) for block in model.blocks]


@pytest.mark.parametrize("make", [wan_model, cogvideox_1_5])
@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), saved_and_loaded], ids=["copy", "pickle", "save"]
)
def test_a_copy_is_not_patched(make: Callable[[], Model], way: Callable[[Any], Any]) -> None:
    model = make()
    kinds, dense = attentions(model), model()
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        sparse = model()
        other = twin(model, way)
        assert attentions(other) == kinds != attentions(model)
        assert torch.equal(other(), dense)
        assert torch.equal(model(), sparse)
        assert (handle.report.sparse_count, handle.report.dense_count) == (2 * LAYERS, 0)
        del other
        assert torch.equal(model(), sparse)
    assert torch.equal(model(), dense)


def test_copy_and_original_are_patched_one_without_the_other() -> None:
    model = wan_model()
    dense = model()
    original = patch(model.transformer, SPARSE, backend="torch")
    sparse = model()
    other = twin(model, copy.deepcopy)
    copied = patch(other.transformer, SPARSE, backend="torch")
    original.restore()
    assert torch.equal(model(), dense)
    assert torch.equal(other(), sparse)
    assert (original.report.sparse_count, copied.report.sparse_count) == (LAYERS, LAYERS)
    copied.restore()
    assert torch.equal(other(), dense)


def test_a_copy_of_one_block_is_not_patched() -> None:
    model = wan_model()
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        attention, tokens = copy.deepcopy(model.blocks[0].attn1), torch.randn(1, 5, 128)
        attention(tokens)
        assert handle.report.dense_count == 0


def test_a_compiled_copy() -> None:
    model = wan_model()
    dense = model()
    with patch(model.transformer, SPARSE, backend="torch"):
        for block in model.blocks:
            block.compile(backend="eager")
        sparse = model()
        other = twin(model, copy.deepcopy)
        assert torch.equal(other(), dense)
        for block in other.blocks:
            block.compile(backend="eager")
        assert torch.equal(other(), dense)
        assert torch.equal(model(), sparse)
