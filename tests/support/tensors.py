"""Random inputs and the measure of error that several tests share."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from psa_core.ops.pyramid.rows import Pyramid

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Shape(NamedTuple):
    """Sizes of one attention call."""

    batch: int = 1
    heads: int = 1
    q_tokens: int = 128
    k_tokens: int = 128
    d: int = 64
    block_m: int = 128
    block_n: int = 128

    @property
    def blocks(self) -> tuple[int, int]:
        """Query blocks and key blocks."""
        return math.ceil(self.q_tokens / self.block_m), math.ceil(self.k_tokens / self.block_n)


def random_qkv(
    shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device = DEVICE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values whose softmax is neither flat nor a single spike."""
    q, k, v = (
        torch.randn(shape.batch, shape.heads, tokens, shape.d, device=device)
        for tokens in (shape.q_tokens, shape.k_tokens, shape.k_tokens)
    )
    return (2 * q).to(dtype), k.to(dtype), (v + 0.5).to(dtype)


def random_levels(shape: Shape, device: torch.device = DEVICE) -> torch.Tensor:
    """A level map that uses every level of the block size, skipping included; no row is empty."""
    choices = torch.tensor([0, *(1 << i for i in range(shape.block_n.bit_length()))], dtype=torch.uint8)
    levels = choices[torch.randint(len(choices), (shape.batch, shape.heads, *shape.blocks))]
    keep = torch.randint(shape.blocks[1], (*levels.shape[:3], 1))
    kept = choices[torch.randint(1, len(choices), keep.shape)]
    return levels.scatter(-1, keep, kept).to(device)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference by the norm of what is expected. NaN, which passes no bound, when an element is NaN."""
    assert actual.shape == expected.shape
    actual, expected = actual.to(expected.device).double(), expected.double()
    return ((actual - expected).norm() / expected.norm()).item()


def softmax_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Dense attention from its definition, in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


def group_means(x: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of groups of tokens of ``[B, H, L, D]`` in float64, and the number of tokens in each group."""
    groups = math.ceil(x.shape[2] / level)
    count = (x.shape[2] - level * torch.arange(groups, device=x.device)).clamp(max=level)
    padded = torch.nn.functional.pad(x.double(), (0, 0, 0, groups * level - x.shape[2]))
    return padded.unflatten(2, (groups, level)).sum(3) / count[:, None], count


def pyramid_oracle(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    levels: torch.Tensor,
    shape: Shape,
    pyramid: Pyramid | None = None,
) -> torch.Tensor:
    """``pyramid_attention_naive`` in few operations, for a GPU; over the rows of a pyramid where one is given."""
    query_block = torch.arange(shape.q_tokens, device=q.device) // shape.block_m
    keys, values, counts, kept = [], [], [], []
    first = 0
    for level in (1 << i for i in range(shape.block_n.bit_length())):
        (k_rows, count), (v_rows, _) = group_means(k, level), group_means(v, level)
        if pyramid is not None and 1 < level <= pyramid.max_level:
            k_rows, v_rows = (x[:, :, first : first + len(count)].double() for x in (pyramid.k, pyramid.v))
            first += len(count)
        key_block = torch.arange(len(count), device=q.device) * level // shape.block_n
        keys.append(k_rows)
        values.append(v_rows)
        counts.append(count)
        kept.append((levels == level)[..., key_block])
    logits = q.double() @ torch.cat(keys, 2).mT / math.sqrt(shape.d) + torch.cat(counts).double().log()
    logits.masked_fill_(~torch.cat(kept, -1)[:, :, query_block], -torch.inf)
    return logits.softmax(-1).nan_to_num_() @ torch.cat(values, 2)
