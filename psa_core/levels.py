"""Level maps: from importance, and the rules that change one (cosine cap, text, composition, repair)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from .config import SIM_LEVELS, PSAConfig
from .errors import ConfigError

# Guards quotas such as ceil(0.07 * 100) against the last bit of a product.
_FUZZ = 1e-9


def select_levels(importance: torch.Tensor, config: PSAConfig) -> torch.Tensor:
    """Choose a level for every block pair (paper, section 3.3).

    Args:
        importance: float ``[B, H, q_blocks, k_blocks]``, rows summing to 1.
        config: ``mask_ratios``, ``mask_mode`` and, for ``thresholdbound``, ``min_full_ratio``.

    Returns:
        uint8 of the same shape. Equal importances rank in the order of their blocks.
    """
    k_blocks = importance.shape[-1]
    ranked = importance.sort(dim=-1, descending=True, stable=True)
    used = {level: hi for level, (lo, hi) in config.mask_ratios.items() if hi > lo}
    bounds = list(used.values())[:-1]
    choice = _constant(tuple(used), torch.uint8, importance.device)
    if config.mask_mode == "topk":
        quotas = [math.ceil(hi * k_blocks - _FUZZ) for hi in bounds]
        rank = torch.arange(k_blocks, device=importance.device)
        edges = _constant(tuple(quotas), rank.dtype, importance.device)
        by_rank = choice[torch.bucketize(rank, edges, right=True)].expand(importance.shape)
    else:
        mass = ranked.values.cumsum(-1)
        before = torch.nn.functional.pad(mass[..., :-1], (1, 0))
        edges = _constant(tuple(bounds), before.dtype, before.device)
        by_rank = choice[torch.bucketize(before, edges, right=True)]
        by_rank[..., : math.ceil(config.min_full_ratio * k_blocks - _FUZZ)] = 1
    return torch.empty_like(by_rank, memory_format=torch.contiguous_format).scatter_(-1, ranked.indices, by_rank)


# Every copy of numbers to a GPU waits for it, so they are copied once. Made out of inference mode, which the cache
# outlives.
@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def similarity_cap(k: torch.Tensor, config: PSAConfig) -> torch.Tensor:
    """The coarsest level each key block may take by the likeness of its keys.

    Level r is allowed where the mean cosine similarity of the key pairs (0, r - 1), (r, 2r - 1) ... of the block
    exceeds its threshold; the highest allowed r counts, 1 if there is none. A block without a whole pair allows none.

    Args:
        k: ``[B, H, L, D]``, in the order in which blocks are cut.

    Returns:
        uint8 ``[B, H, 1, k_blocks]``.
    """
    length, block_n = k.shape[2], config.block_n
    k_blocks = math.ceil(length / block_n)
    cap = torch.ones((*k.shape[:2], 1, k_blocks), dtype=torch.uint8, device=k.device)
    for key, level in SIM_LEVELS.items():
        pairs = length // level
        first, last = k[:, :, : pairs * level : level], k[:, :, level - 1 :: level]
        similarity = torch.nn.functional.cosine_similarity(first.float(), last.float(), dim=-1)
        per_block = block_n // level
        padded = torch.nn.functional.pad(similarity, (0, k_blocks * per_block - pairs))
        whole = (pairs - per_block * torch.arange(k_blocks, device=k.device)).clamp(0, per_block)
        # 0 / 0 is NaN, which exceeds nothing.
        mean = padded.unflatten(-1, (k_blocks, per_block)).sum(-1) / whole
        cap.masked_fill_((mean > config.sim_thresholds[key])[:, :, None], level)
    return cap


def full_resolution_text(levels: torch.Tensor, text_length: int, block_m: int, block_n: int) -> torch.Tensor:
    """Put every block that holds text at level 1, as query and as key block. Changes ``levels`` and returns it."""
    if text_length:
        levels[:, :, : math.ceil(text_length / block_m)] = 1
        levels[..., : math.ceil(text_length / block_n)] = 1
    return levels


def compose(a: torch.Tensor, b: torch.Tensor, how: str = "intersect") -> torch.Tensor:
    """Combine two level maps. Where both keep a block the finer level wins.

    Args:
        a, b: uint8 level maps, broadcast against each other.
        how: ``"intersect"``: a block skipped by one is skipped; ``"finer"``: a block kept by one is kept.

    Raises:
        ConfigError: no such way to combine.
    """
    finer = torch.minimum(a - 1, b - 1) + 1  # unsigned: skipped wraps around to the coarsest
    if how == "finer":
        return finer
    if how == "intersect":
        return finer * ((a > 0) & (b > 0))
    raise ConfigError("how", how, "must be one of intersect, finer")


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


def density(levels: torch.Tensor) -> torch.Tensor:
    """Share of dense attention's FLOPs: the mean of 1 / level over block pairs, 0 for skipped. A 0-dim tensor."""
    cost = 1.0 / levels.float()
    return cost.masked_fill_(levels == 0, 0.0).mean()
