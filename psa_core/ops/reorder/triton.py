"""Where a kernel finds the order of its head."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def order_start(of_head_ptr, head, n_tokens):
    """Where in the index the order of a head begins; ``head`` counts those of all batch entries.

    A number in 32 bits, to be added to positions, takes one register of a loop where a pointer takes two.
    """
    return tl.load(of_head_ptr + head) * n_tokens
