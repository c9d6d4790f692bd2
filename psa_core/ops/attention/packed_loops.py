"""Online softmax over a packed pyramid in Triton: over tiles of level 1, and over pooled rows, which are gathered."""

from __future__ import annotations

import triton
import triton.language as tl

from ..block_list.triton import TOKEN_BITS, TOKEN_MASK
from .triton import look_up_blocks, rows_of_blocks, seen_rows


@triton.jit
def _tile(packed, tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TMA: tl.constexpr):
    """A tile ``[ROWS, COLUMNS]`` of a packed tensor, from its descriptor or by pointers."""
    if TMA:
        rows = packed.load([tile * ROWS, 0])
    else:
        at = tile.to(tl.int64) * (ROWS * COLUMNS) + tl.arange(0, ROWS)[:, None] * COLUMNS
        rows = tl.load(packed + (at + tl.arange(0, COLUMNS)[None, :]))
    return rows


@triton.jit
def _in_operand_order(p):
    """The columns of P in the order of packed FP8 values, which each thread then multiplies as it has them.

    Of 16 columns ``8 j + 2 c + e`` of a product, thread c of four has ``e`` and ``j`` of 0 and 1; of the operand of the
    next product it must have ``4 c`` to ``4 c + 3``.
    """
    M: tl.constexpr = p.shape[0]
    N: tl.constexpr = p.shape[1]
    p = tl.permute(tl.reshape(p, (M, N // 16, 2, 4, 2)), (0, 1, 3, 2, 4))
    return tl.reshape(p, (M, N))


@triton.jit
def _attend_tiles(
    acc, row_max, row_sum, q, q_scale, packed_k, k_scale_ptr, packed_v, first_tile, blocks_ptr, n_rows,
    begin, stop, seen,
    D: tl.constexpr, LOG_BLOCK_N: tl.constexpr, TILE_N: tl.constexpr,
    FP8: tl.constexpr, SHIFT: tl.constexpr, HALF_SUMS: tl.constexpr, TMA: tl.constexpr, STAGES: tl.constexpr,
    MASK: tl.constexpr,
):  # fmt: skip
    """Online softmax (base 2) over the listed blocks of level 1, in tiles from begin to stop.

    Args:
        q: int8 ``[M, D]``; a step of it and a step of a key stand for ``q_scale`` by the key's scale of a logit.
        acc, row_sum: of weights ``2 ** SHIFT`` times as large as softmax's.
        seen: as of ``attend_level``, with MASK.
    """
    TILES: tl.constexpr = (1 << LOG_BLOCK_N) // TILE_N
    # Below any product of two rows of INT8.
    LOWEST: tl.constexpr = -(1 << 30)
    slot = tl.arange(0, TILE_N)
    # Looked up a tile ahead, so that no load waits for another.
    block = tl.load(blocks_ptr + (begin >> LOG_BLOCK_N), mask=n_rows > begin, other=0)
    for start in tl.range(begin, stop, TILE_N, num_stages=STAGES):
        tile = first_tile + block * TILES + start // TILE_N % TILES
        after = start + TILE_N
        block = tl.load(blocks_ptr + (after >> LOG_BLOCK_N), mask=after < n_rows, other=0)
        scale = q_scale * tl.load(k_scale_ptr + tile)
        s = tl.dot(q, tl.trans(_tile(packed_k, tile, TILE_N, D, TMA)), out_dtype=tl.int32)
        if MASK:
            s = tl.where((start + slot)[None, :] < seen[:, None], s, LOWEST)
        new_max = tl.maximum(row_max, tl.max(s, 1).to(tl.float32) * scale)
        p = tl.exp2(s.to(tl.float32) * scale[:, None] - (new_max - SHIFT)[:, None])
        if MASK:
            # By its product: a scale of zero would let it through.
            p = tl.where(s > LOWEST, p, 0.0)
        elif n_rows - start < TILE_N:
            p = tl.where((slot < n_rows - start)[None, :], p, 0.0)
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        if FP8:
            # Tensor cores keep 13 bits of a sum of FP8 products: enough for a tile, and not for all of them. Triton
            # leaves a sum outside where it is told how many products may be added inside, as it tells itself on Hopper.
            v = tl.trans(_tile(packed_v, tile, D, TILE_N, TMA))
            p = _in_operand_order(p.to(tl.float8e4nv))
            acc += tl.dot(p, v, max_num_imprecise_acc=None if TMA else TILE_N)
        elif HALF_SUMS:
            v = _tile(packed_v, tile, TILE_N, D, TMA)
            acc += tl.dot(p.to(tl.float16), v, out_dtype=tl.float16).to(tl.float32)
        else:
            acc = tl.dot(p.to(tl.float16), _tile(packed_v, tile, TILE_N, D, TMA), acc)
        row_max = new_max
    return acc, row_max, row_sum


@triton.jit
def attend_packed_keys(
    acc, row_max, row_sum, q, q_scale, packed_k, k_scale_ptr, packed_v, first_tile, blocks_ptr, n_rows,
    hidden_ptr, first, q_tokens,
    D: tl.constexpr, LOG_BLOCK_N: tl.constexpr, TILE_N: tl.constexpr,
    FP8: tl.constexpr, SHIFT: tl.constexpr, HALF_SUMS: tl.constexpr, TMA: tl.constexpr, STAGES: tl.constexpr,
    CAUSAL: tl.constexpr,
):  # fmt: skip
    """Online softmax over all listed blocks of level 1: as ``attend_keys`` first the tiles that all queries see."""
    seen, whole = 0, n_rows
    if CAUSAL:
        seen = seen_rows(n_rows, hidden_ptr, first, q_tokens, q.shape[0])
        whole = tl.min(seen, 0) // TILE_N * TILE_N
    for cut in tl.static_range(2 if CAUSAL else 1):
        acc, row_max, row_sum = _attend_tiles(
            acc, row_max, row_sum, q, q_scale, packed_k, k_scale_ptr, packed_v, first_tile, blocks_ptr, n_rows,
            whole if cut else 0, n_rows if cut else whole, seen,
            D, LOG_BLOCK_N, TILE_N, FP8, SHIFT, HALF_SUMS, TMA, STAGES, cut == 1,
        )  # fmt: skip
    return acc, row_max, row_sum


@triton.jit
def _attend_packed_level(
    acc, row_max, row_sum, q, q_scale, k_ptr, k_scale_ptr, v_ptr, blocks_ptr, span, level, k_tokens,
    D: tl.constexpr, LOG_BLOCK_N: tl.constexpr, TILE_N: tl.constexpr, HALF_SUMS: tl.constexpr,
):  # fmt: skip
    """Online softmax over the packed rows of the listed blocks of level ``2 ** level``, as in ``attend_level``."""
    n_rows = span >> TOKEN_BITS
    log_rows = LOG_BLOCK_N - level
    bias = level * 1.0
    end = n_rows - 1 + (span & TOKEN_MASK) * tl.exp2(-bias)
    slot = tl.arange(0, TILE_N)
    d = tl.arange(0, D)[None, :]
    # Looked up a tile ahead, so that no load waits for another.
    block = look_up_blocks(0, slot, n_rows, blocks_ptr, log_rows, False)
    for start in range(0, n_rows, TILE_N):
        row = rows_of_blocks(block, start, slot, n_rows, log_rows, k_tokens, False)
        block = look_up_blocks(start + TILE_N, slot, n_rows, blocks_ptr, log_rows, False)
        k_scale = tl.load(k_scale_ptr + row)
        # All rows of a head fit into 32 bits, as its tokens do into 23.
        at = row[:, None] * D + d
        s = tl.dot(q, tl.trans(tl.load(k_ptr + at)), out_dtype=tl.int32).to(tl.float32) * k_scale[None, :]
        new_max = tl.maximum(row_max, tl.max(s, 1) * q_scale + bias)
        p = tl.exp2(s * q_scale[:, None] - (new_max - bias)[:, None])
        if n_rows - start <= TILE_N:
            p *= tl.clamp(end - (start + slot), 0.0, 1.0)[None, :]
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        v = tl.load(v_ptr + at)
        if HALF_SUMS:
            acc += tl.dot(p.to(tl.float16), v, out_dtype=tl.float16).to(tl.float32)
        else:
            acc = tl.dot(p.to(tl.float16), v, acc)
        row_max = new_max
    return acc, row_max, row_sum


@triton.jit
def attend_packed_rows(
    acc, row_max, row_sum, q, q_scale, k_ptr, k_scale_ptr, v_ptr, blocks_ptr, spans_ptr, span, k_tokens,
    D: tl.constexpr, LOG_BLOCK_N: tl.constexpr, N_LEVELS: tl.constexpr, TILE_N: tl.constexpr, HALF_SUMS: tl.constexpr,
):  # fmt: skip
    """Online softmax over the packed rows of all levels; ``span``: of level 1, whose blocks are listed first."""
    for level in range(1, N_LEVELS):
        blocks_ptr += tl.cdiv(span >> TOKEN_BITS, 1 << (LOG_BLOCK_N - level + 1))
        span = tl.load(spans_ptr + level)
        acc, row_max, row_sum = _attend_packed_level(
            acc, row_max, row_sum, q, q_scale, k_ptr, k_scale_ptr, v_ptr, blocks_ptr, span, level, k_tokens,
            D, LOG_BLOCK_N, TILE_N, HALF_SUMS,
        )  # fmt: skip
        rows = (k_tokens + (1 << level) - 1) >> level
        k_ptr += rows.to(tl.int64) * D
        k_scale_ptr += rows
        v_ptr += rows.to(tl.int64) * D
    return acc, row_max, row_sum
