"""Level maps: from importance, and the rules that change one (static map, cosine cap, sinks, repair)."""

from __future__ import annotations

import torch

from ...settings.config import PSAConfig
from ...settings.errors import ConfigError
from ...settings.sinks import Sinks
from ..causal import Causal, causal_levels, own_blocks
from ..constant import constant
from .bounds import Quotas, row_bounds
from .sinks import sink_tables

COMPOSITIONS = ("intersect", "finer wins")


def levels_from_importance(
    importance: torch.Tensor,
    config: PSAConfig,
    cap: torch.Tensor | None = None,
    static_levels: torch.Tensor | None = None,
    static_rule: str = "intersect",
    sinks: Sinks = (),
    backend: str = "torch",
    quotas: Quotas | None = None,
    blocks: tuple[int, ...] | None = None,
    causal: Causal | None = None,
) -> torch.Tensor:
    """The level map that runs: levels by importance, the static map, the cosine cap, sinks, and no row left empty.

    Args:
        importance: float ``[B, H, q_blocks, k_blocks]``, rows summing to 1.
        config: settings.
        cap: uint8 ``[B, H, 1, k_blocks]``, the coarsest level of each key block.
        static_levels: uint8 ``[B | 1, H | 1, q_blocks, k_blocks]``, combined as :func:`compose` does. An empty row is
            repaired from the blocks that it keeps, as long as it keeps any.
        static_rule: ``"intersect"`` or ``"finer wins"``.
        sinks: tokens whose blocks are at full resolution.
        backend: ``"triton"`` (one launch) or ``"torch"``.
        quotas: each head's own, in place of the config's ``mask_ratios``, ``mask_mode`` and ``min_full_ratio``.
        blocks: which query blocks the rows are; None for all.
        causal: own key blocks rank before all others and stay at level 1, those behind them are skipped, whatever else
            is said; each row's shares are those of the blocks that it sees. Sinks are positions of keys.

    Returns:
        uint8 ``[B, H, q_blocks, k_blocks]`` in which every row keeps at least one block.
    """
    if backend == "triton":
        from .triton import select_levels_triton

        return select_levels_triton(importance, config, cap, static_levels, static_rule, sinks, quotas, blocks, causal)
    levels = select_levels(importance, config, quotas, causal, blocks)
    if static_levels is not None:
        levels = compose(levels, static_levels, static_rule)
        importance = importance - 2.0 * (static_levels == 0)
    if cap is not None:
        levels = torch.minimum(levels, cap)
    offset = 0 if causal is None else causal.offset
    levels = full_resolution_sinks(levels, sinks, config.block_m, config.block_n, blocks, offset)
    return repair_empty_rows(levels, importance) if causal is None else causal_levels(levels, causal, blocks)


def select_levels(
    importance: torch.Tensor,
    config: PSAConfig,
    quotas: Quotas | None = None,
    causal: Causal | None = None,
    blocks: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Choose a level for every block pair (arXiv 2512.04025, section 3.3).

    Args:
        importance: float ``[B, H, q_blocks, k_blocks]``, rows summing to 1.
        config: ``mask_ratios``, ``mask_mode`` and, for ``thresholdbound``, ``min_full_ratio``.
        quotas: each head's own, in place of these.
        causal, blocks: as in :func:`levels_from_importance`.

    Returns:
        uint8 of the same shape. Equal importances rank in the order of their blocks. Under the causal mask the levels
        of own blocks, and of those behind them, mean nothing yet.
    """
    k_blocks, device = importance.shape[-1], importance.device
    ranked = _own_first(importance, causal, blocks).sort(dim=-1, descending=True, stable=True).indices
    rank = torch.arange(k_blocks, device=device)
    levels, bounds, full_quota = row_bounds(config, k_blocks, device, causal, blocks)
    if quotas is None and config.mask_mode == "topk":
        quotas = Quotas(levels, bounds[None, None])
    if quotas is not None:
        number = (quotas.bounds[..., None, :] <= rank[:, None]).sum(-1).expand(importance.shape)
        by_rank = constant(quotas.levels, torch.uint8, device)[number]
    else:
        mass = importance.gather(-1, ranked).cumsum(-1)
        before = torch.nn.functional.pad(mass[..., :-1], (1, 0))
        number = torch.bucketize(before, bounds[0].to(before.dtype), right=True)
        by_rank = constant(levels, torch.uint8, device)[number].masked_fill_(rank < full_quota[:, None], 1)
    return torch.empty_like(by_rank, memory_format=torch.contiguous_format).scatter_(-1, ranked, by_rank)


def _own_first(importance: torch.Tensor, causal: Causal | None, blocks: tuple[int, ...] | None) -> torch.Tensor:
    """Importances that put own key blocks before all others."""
    if causal is None:
        return importance
    first, behind = own_blocks(causal, blocks, importance.device)
    j = torch.arange(importance.shape[-1], device=importance.device)
    return importance.masked_fill((j >= first) & (j < behind), 2.0)


def compose(levels: torch.Tensor, other: torch.Tensor, rule: str = "intersect") -> torch.Tensor:
    """Combine two level maps, block pair by block pair; skipped counts as coarser than every level.

    Args:
        levels, other: uint8 ``[B | 1, H | 1, q_blocks, k_blocks]``.
        rule: ``"intersect"`` takes the coarser of the two, so that what either skips is skipped; ``"finer wins"`` the
            finer, so that what either keeps is kept.

    Returns:
        uint8, broadcast over B and H.

    Raises:
        ConfigError: no such rule, or maps of other types or sizes.
    """
    if rule not in COMPOSITIONS:
        raise ConfigError("rule", rule, "must be one of " + ", ".join(COMPOSITIONS))
    if levels.dtype != torch.uint8 or other.dtype != torch.uint8 or levels.shape[-2:] != other.shape[-2:]:
        kinds = " and ".join(f"{x.dtype} {list(x.shape)}" for x in (levels, other))
        raise ConfigError("level maps", kinds, "must both be uint8 and have the same blocks")
    # Unsigned wrap-around makes skipped (0 - 1 = 255) coarser than every level.
    pick = torch.maximum if rule == "intersect" else torch.minimum
    return pick(levels - 1, other - 1) + 1


def full_resolution_sinks(
    levels: torch.Tensor,
    sinks: Sinks,
    block_m: int,
    block_n: int,
    blocks: tuple[int, ...] | None = None,
    offset: int = 0,
) -> torch.Tensor:
    """Put every key block that holds a token of a sink at level 1, and every query block whose rows are to be dense.

    Args:
        levels: uint8 ``[B, H, q_blocks, k_blocks]``, which it changes.
        blocks: which query blocks the rows are; None for all.
        offset: where the first query stands among the tokens of the sinks.

    Returns:
        ``levels``.
    """
    if not sinks:
        return levels
    q_blocks, k_blocks = blocks or levels.shape[2], levels.shape[3]
    rows, columns = sink_tables(sinks, block_m, block_n, q_blocks, k_blocks, levels.device, offset)
    return levels.masked_fill_((rows[:, None] | columns).bool(), 1)


def repair_empty_rows(levels: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    """Keep the most important block, at level 1, in every row that keeps nothing.

    Args:
        levels: uint8 ``[B | 1, H | 1, q_blocks, k_blocks]``.
        importance: float ``[B, H, q_blocks, k_blocks]``.

    Returns:
        uint8 ``[B, H, q_blocks, k_blocks]``.
    """
    best = importance.argmax(-1, keepdim=True)
    empty = (levels == 0).all(-1, keepdim=True).expand(best.shape)
    levels = levels.expand(importance.shape)
    return levels.scatter(-1, best, torch.where(empty, 1, levels.gather(-1, best)).to(torch.uint8))


def level_shares(levels: torch.Tensor, max_level: int) -> torch.Tensor:
    """The share of block pairs at level 1, 2, 4 ... up to ``max_level``; the rest is skipped. Float32, one a level."""
    counts = [(levels == 1 << i).sum(dtype=torch.float32) for i in range(max_level.bit_length())]
    return torch.stack(counts) / levels.numel()


def density(levels: torch.Tensor) -> torch.Tensor:
    """Share of dense attention's FLOPs: the mean of 1 / level over block pairs, 0 for skipped. A 0-dim tensor."""
    cost = 1.0 / levels.float()
    return cost.masked_fill_(levels == 0, 0.0).mean()
