"""Forward passes of whole models."""

from __future__ import annotations

import pytest
import torch

from psa_core.apps.bench.cases import WAN_720P, Case
from psa_core.apps.bench.checks import relative_error
from psa_core.apps.bench.ours import Setting

pytest.importorskip("diffusers")

from benchmarks.models import TRANSFORMERS, Transformer, forward_pass
from psa_core.hosts.diffusers import patch

from ..support.diffusers_models import TEXT, cogvideox, wan

CPU = torch.device("cpu")


@pytest.mark.parametrize("rotary", [False, True])
def test_forward_passes_of_whole_models_run_sparse(rotary: bool) -> None:
    if rotary:
        case = Case("tiny CogVideoX1.5", 2, 64, (3, 9, 7), TEXT)
        settings = {"patch_size_t": 2, "use_rotary_positional_embeddings": True}
        transformer = Transformer(case, lambda: cogvideox(**settings), (1, 6, 4, 18, 14), (TEXT, 8), rotary)
    else:
        transformer = Transformer(Case("tiny Wan", 2, 64, (5, 9, 7)), wan, (1, 4, 5, 18, 14), (TEXT, 8), rotary)
    model, call = forward_pass(transformer, CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    dense = call()
    with patch(model, Setting("mean").config(WAN_720P), backend="torch") as handle:
        sparse = call()
    assert (handle.report.sparse_count, handle.report.dense_count) == (2, 0)
    assert 0 < relative_error(sparse, dense) < 0.2


def test_whole_models_have_the_tokens_of_their_cases() -> None:
    for transformer in TRANSFORMERS:
        case = transformer.case
        # Wan: channels before frames and pooled 1 x 2 x 2; CogVideoX1.5: frames first and pooled 2 x 2 x 2.
        extents = [n for n in transformer.latents[1:] if n != 16]
        pooling = (2, 2, 2) if case.text_length else (1, 2, 2)
        assert tuple(n // p for n, p in zip(extents, pooling, strict=True)) == case.grid
