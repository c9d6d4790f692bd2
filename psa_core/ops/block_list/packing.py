"""How a span is packed into 32 bits."""

from __future__ import annotations

# The lower bits of a span hold the tokens of its last row, 128 at most; the others its rows, 2 ** 23 - 1 at most.
TOKEN_BITS = 8

TOKEN_MASK = (1 << TOKEN_BITS) - 1

# Query blocks are ordered by the half octave of the rows they keep: as many as all keys, a 1.4th, a half ...
N_SIZES = 16
