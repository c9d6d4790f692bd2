"""Memory that a call needs."""

from __future__ import annotations

from dataclasses import replace

import torch

from psa_core.apps.bench.inputs import Inputs
from psa_core.apps.bench.timing import Contender


def with_memory(contender: Contender, inputs: Inputs) -> Contender:
    """The contender with its memory in its row: peak bytes of one call beyond what is there and its own result.

    It must have run before, as a first call also compiles and fills caches.
    """
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = contender.call()
    torch.cuda.synchronize()
    extra = torch.cuda.max_memory_allocated() - before - out.nbytes
    row = contender.row.replace(extra_memory=extra / (inputs.k.nbytes + inputs.v.nbytes))
    return replace(contender, row=row)
