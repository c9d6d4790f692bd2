"""Levels from importance in Triton: one program a row, which finds thresholds by bisection and sorts nothing."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ...settings.config import PSAConfig
from ...settings.sinks import Sinks
from ..causal import Causal, own_blocks
from ..compiling import compiles_side_by_side, launcher
from ..constant import constant
from ..current_device import on_device_of_first
from .bounds import Quotas, level_bounds, row_bounds
from .sinks import sink_tables

# Importances that a thread holds in registers; twice as many spill.
_A_THREAD = 16
# Sequences up to this one find their kernel where others have had theirs compiled ahead.
_LONGEST = 1 << 18


@triton.jit
def _weight_above(bits, threshold, BY_MASS: tl.constexpr):
    """How much importance lies above a threshold; without BY_MASS, how many blocks."""
    weight = bits.to(tl.float32, bitcast=True) if BY_MASS else tl.full(bits.shape, 1.0, tl.float32)
    return tl.sum(tl.where(bits > threshold, weight, 0.0), 0)


@triton.jit
def _first_outside(bits, j, value, above, bound, BY_MASS: tl.constexpr):
    """The first position at which a block that equals ``value`` has ``bound`` or more ranked before it."""
    weight = value.to(tl.float32, bitcast=True) if BY_MASS else 1.0
    low, high = value * 0, value * 0 + bits.shape[0]
    while low < high:
        middle = (low + high) // 2
        equal_before = tl.sum(tl.where((bits == value) & (j < middle), 1.0, 0.0), 0)
        inside = above + equal_before * weight < bound
        low = tl.where(inside, middle + 1, low)
        high = tl.where(inside, high, middle)
    return low


@triton.jit
def _within(bits, j, low, above_low, high, above_high, bound, BY_MASS: tl.constexpr):
    """Which blocks have less than ``bound`` ranked before them: a mask over the row.

    They are the blocks above the importance of the last of them, and the first few of those that equal it. Bisection
    closes in on it between ``low`` and ``high``; ``above_low`` counts ``low`` itself, ``above_high`` leaves ``high``
    out.

    Returns:
        The mask, and ``high`` and ``above_high`` to start from for a larger bound.
    """
    # Until what lies between the two weighs as much as a single block. A second one that rounding hides is too light to
    # matter.
    while (low < high) & (above_low - above_high >= 1.5 * (low.to(tl.float32, bitcast=True) if BY_MASS else 1.0)):
        middle = low + (high - low) // 2
        above = _weight_above(bits, middle, BY_MASS)
        fits = above < bound
        high = tl.where(fits, middle, high)
        above_high = tl.where(fits, above, above_high)
        low = tl.where(fits, low, middle + 1)
        above_low = tl.where(fits, above_low, above)
    end = low * 0 + bits.shape[0]
    # With ``low < high`` the one block between them is inside. Else several may be equal, and their order decides.
    if low == high:
        end = _first_outside(bits, j, low, above_high, bound, BY_MASS)
    return (bits > low) | ((bits == low) & (j < end)), high, above_high


@triton.jit
def _rank(
    bits, j, bounds_ptr, choices_ptr, n_bounds, full_quota, before, BY_MASS: tl.constexpr, CAUSAL: tl.constexpr
):  # fmt: skip
    """The level of every block by what ranks before it; with CAUSAL so do ``before`` blocks, or so much importance."""
    largest = tl.max(bits, 0)
    least = tl.min(tl.where(bits >= 0, bits, largest), 0)
    nothing = tl.full([], 0.0, tl.float32)
    total = _weight_above(bits, -1, BY_MASS)
    high, above_high = largest, nothing
    levels = tl.zeros(bits.shape, tl.int32) + tl.load(choices_ptr)
    for i in range(n_bounds):
        bound = tl.load(bounds_ptr + i).to(tl.float32)
        if CAUSAL:
            bound -= before
        # Without a quota not even the first block is inside, which bisection takes for granted.
        low = tl.where(bound > 0, least, high)
        within, high, above_high = _within(bits, j, low, total, high, above_high, bound, BY_MASS)
        levels = tl.where(within, levels, tl.load(choices_ptr + i + 1))
    if full_quota > 0:
        n_blocks = _weight_above(bits, -1, False)
        within, _, _ = _within(bits, j, least, n_blocks, largest, nothing, full_quota, False)
        levels = tl.where(within, 1, levels)
    return levels


@triton.jit
def _repair(levels, score, j):
    """Level 1 for the best score of a row that keeps nothing."""
    if tl.max(levels, 0) == 0:
        levels = tl.where(j == tl.argmax(score, 0), 1, levels)
    return levels


# Sizes change from video to video, and nothing is gained by compiling for each. Neither is by where importance begins:
# rows of any length follow each other, and that of one order out of several is a part of a tensor.
@triton.jit(
    do_not_specialize=[
        "bounds_stride", "bounds_row_stride", "static_stride_b", "static_stride_h",
        "heads", "q_blocks", "k_blocks", "n_bounds", "full_quota",
    ],
    do_not_specialize_on_alignment=["importance_ptr"],
)  # fmt: skip
def _select_levels(
    importance_ptr, bounds_ptr, choices_ptr, cap_ptr, static_ptr, sink_rows_ptr, sink_columns_ptr, levels_ptr,
    own_ptr, behind_ptr, full_quota_ptr,
    bounds_stride, bounds_row_stride, static_stride_b, static_stride_h,
    heads, q_blocks, k_blocks, n_bounds, full_quota,
    BY_MASS: tl.constexpr, CAP: tl.constexpr, STATIC: tl.constexpr, INTERSECT: tl.constexpr, SINKS: tl.constexpr,
    CAUSAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row of the level map.

    With CAUSAL its own blocks, from ``own`` up to ``behind``, rank first and are at level 1, and those from there on
    are skipped. They take no part in the bisection, which looks for what the bounds leave the others.
    """
    row = tl.program_id(0).to(tl.int64)
    head = row // q_blocks
    i = row % q_blocks
    j = tl.arange(0, BLOCK)
    real = j < k_blocks
    importance = tl.load(importance_ptr + row * k_blocks + j, mask=real, other=0.0).to(tl.float32)
    # NaN counts as no importance.
    importance = tl.where(importance > 0.0, importance, 0.0)
    # Floats that are not negative compare as their bits do.
    bits = tl.where(real, importance.to(tl.int32, bitcast=True), -1)
    bounds_ptr += head * bounds_stride
    before = 0.0
    if CAUSAL:
        own, behind = tl.load(own_ptr + i), tl.load(behind_ptr + i)
        before = (behind - own).to(tl.float32)
        if BY_MASS:
            before = tl.sum(tl.where((j >= own) & (j < behind), importance, 0.0), 0)
            full_quota = tl.load(full_quota_ptr + i) - (behind - own)
        bits = tl.where(j < own, bits, -1)
        bounds_ptr += i * bounds_row_stride
    levels = _rank(bits, j, bounds_ptr, choices_ptr, n_bounds, full_quota, before, BY_MASS, CAUSAL)
    levels = tl.where(real, levels, 0)

    score = tl.where(bits >= 0, bits.to(tl.float32, bitcast=True), float("-inf"))
    if STATIC:
        static_ptr += (head // heads) * static_stride_b + (head % heads) * static_stride_h
        static = tl.load(static_ptr + i * k_blocks + j, mask=real, other=0).to(tl.int32)
        # Skipped comes behind every level.
        rank, static_rank = (levels - 1) & 255, (static - 1) & 255
        rank = tl.maximum(rank, static_rank) if INTERSECT else tl.minimum(rank, static_rank)
        levels = (rank + 1) & 255
        # An empty row is repaired from the blocks that the static map keeps, as long as it keeps any.
        score -= tl.where(static == 0, 2.0, 0.0)
    if CAP:
        levels = tl.minimum(levels, tl.load(cap_ptr + head * k_blocks + j, mask=real, other=0).to(tl.int32))
    if SINKS:
        held = tl.load(sink_columns_ptr + j, mask=real, other=0) | tl.load(sink_rows_ptr + i)
        levels = tl.where(real & (held > 0), 1, levels)
    levels = tl.where(j < own, levels, (j < behind).to(tl.int32)) if CAUSAL else _repair(levels, score, j)
    tl.store(levels_ptr + row * k_blocks + j, levels.to(tl.uint8), mask=real)


def launch_for(k_blocks: int) -> tuple[int, int]:
    """Width of a row in registers, and warps, for a number of key blocks."""
    block = max(128, triton.next_power_of_2(k_blocks))
    return block, min(max(block // (32 * _A_THREAD), 1), 32)


def _launches(k_blocks: int, block_n: int) -> list[tuple[int, int]]:
    """What to launch for, as in :func:`launch_for`: one kernel, or those of all lengths where they are compiled ahead.

    A row fills a power of two of registers, so that lengths do not share one kernel, as they do all others. A wider
    one for all would have short rows wait for lanes that hold nothing.
    """
    if not compiles_side_by_side():
        return [launch_for(k_blocks)]
    return sorted({launch_for(1 << i) for i in range((_LONGEST // block_n).bit_length())})


@on_device_of_first
def select_levels_triton(
    importance: torch.Tensor,
    config: PSAConfig,
    cap: torch.Tensor | None = None,
    static_levels: torch.Tensor | None = None,
    static_rule: str = "intersect",
    sinks: Sinks = (),
    quotas: Quotas | None = None,
    blocks: tuple[int, ...] | None = None,
    causal: Causal | None = None,
) -> torch.Tensor:
    """Everything between importance and the level map that runs, in one launch.

    Ranks compare importances as float32. Masses add up in another order than the oracle's: a block whose exclusive
    mass equals a bound but for rounding may fall on either side of it. NaN counts as no importance.

    Args:
        importance: ``[B, H, q_blocks, k_blocks]``, any floating dtype, not negative, rows summing to 1.
        config, cap, static_levels, static_rule, sinks, quotas, blocks, causal: as in ``levels_from_importance``.

    Returns:
        uint8 ``[B, H, q_blocks, k_blocks]``, contiguous, in which every row keeps at least one block.
    """
    batch, heads, q_blocks, k_blocks = importance.shape
    by_mass = quotas is None and config.mask_mode == "thresholdbound"
    # Of all rows, and of each; the latter only where own blocks count.
    full_quota, full_quotas = 0, None
    if quotas is not None:
        choices, bounds = quotas.levels, quotas.bounds.contiguous()
    elif causal is not None:
        choices, bounds, full_quotas = row_bounds(config, k_blocks, importance.device, causal, blocks)
    else:
        choices, shared, full_quota = level_bounds(config, k_blocks)
        bounds = constant(shared, torch.float32 if by_mass else torch.int32, importance.device)
    n_bounds = len(choices) - 1
    importance = importance.contiguous()
    levels = torch.empty(importance.shape, dtype=torch.uint8, device=importance.device)
    # Stand-ins for what is absent; the kernel does not read them.
    cap_rows = levels if cap is None else cap.contiguous()
    static_rows = levels if static_levels is None else static_levels.contiguous().expand(batch, heads, -1, -1)
    rows, columns, own, behind = levels, levels, levels, levels
    if causal is not None:
        own, behind = own_blocks(causal, blocks, importance.device)
    if sinks:
        offset = 0 if causal is None else causal.offset
        sizes = config.block_m, config.block_n, blocks or q_blocks, k_blocks
        rows, columns = sink_tables(sinks, *sizes, importance.device, offset)
    launch = launcher(_select_levels, (batch * heads * q_blocks,))
    for block, num_warps in _launches(k_blocks, config.block_n):
        launch(
            importance, bounds, constant(choices, torch.int32, importance.device), cap_rows, static_rows,
            rows, columns, levels, own, behind, levels if full_quotas is None else full_quotas,
            0 if quotas is None else bounds[0, 0].numel(), n_bounds if bounds.dim() > 1 and bounds.shape[-2] > 1 else 0,
            *static_rows.stride()[:2],
            heads, q_blocks, k_blocks, n_bounds, full_quota,
            BY_MASS=by_mass, CAP=cap is not None, STATIC=static_levels is not None,
            INTERSECT=static_rule == "intersect", SINKS=bool(sinks), CAUSAL=causal is not None,
            BLOCK=block, num_warps=num_warps,
        )  # fmt: skip
    return levels
