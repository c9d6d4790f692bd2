"""Rounding to INT8 inside of Triton kernels."""

from __future__ import annotations

import triton
import triton.language as tl

from . import naive

INT8_TOP = tl.constexpr(naive.INT8_TOP)


@triton.jit
def magnitude(x):
    """Bits of the magnitude of float32. As integers they compare like the numbers, and NaN is above them all."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def to_int8(x, largest):
    """float32 in steps, of which INT8_TOP are ``largest``."""
    return tl.floor(x * tl.where(largest > 0, INT8_TOP / largest, 0.0) + 0.5).to(tl.int8)


@triton.jit
def rows_in_int8(x):
    """Steps of float32 ``[N, D]``, and what a step of each row stands for, float32 ``[N]``."""
    largest = tl.max(magnitude(x), 1).to(tl.float32, bitcast=True)
    return to_int8(x, largest[:, None]), largest / INT8_TOP
