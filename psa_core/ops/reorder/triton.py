"""Where a kernel finds the order of its head."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def index_of_head(index_ptr, of_head_ptr, head, n_tokens):
    """The row of the index that a head takes; ``head`` counts those of all batch entries."""
    return index_ptr + tl.load(of_head_ptr + head).to(tl.int64) * n_tokens
