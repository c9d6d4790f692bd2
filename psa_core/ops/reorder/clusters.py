"""Clusters of tokens by content: k-means of each head's queries, or of its keys, in plain torch on any device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

# Few, because each seam between two of them runs through a block; with more or fewer, fewer heads gain
# (benchmarks/NOTES.md).
CLUSTERS = 16
# From nothing, and from centroids of an earlier step. Each looks at one token in so many; the last look is at all.
ITERATIONS, ITERATIONS_AGAIN = 4, 1
FIT_STRIDE = 5
# Of tokens that are looked at, at once.
CLUSTERED_AT_ONCE = 1 << 26


class Clusters(NamedTuple):
    """Where each token belongs.

    Attributes:
        nearest: int32 ``[B, H, L]``: the number of each token's cluster.
        centroids: ``[B, H, CLUSTERS, D]`` in the dtype of the tokens, in the order of their first tokens.
    """

    nearest: torch.Tensor
    centroids: torch.Tensor


@torch.no_grad()
def cluster(x: torch.Tensor, start: torch.Tensor | None = None) -> Clusters:
    """K-means of the tokens of each head. Deterministic; draws no random numbers, and waits for nothing.

    Beside the result there are at most ``2**26`` numbers of x, copied to float32, at once: 256 MB.

    Args:
        x: ``[B, H, L, D]``, any strides.
        start: centroids of an earlier step, ``[B, H, CLUSTERS, D]``; None for tokens at even distances.
    """
    centroids, iterations = start, ITERATIONS_AGAIN
    if centroids is None:
        centroids, iterations = _first(x), ITERATIONS
    for _ in range(iterations):
        centroids = _means(x[:, :, ::FIT_STRIDE], centroids)
    nearest = torch.cat([_nearest(part, centroids) for part in _parts(x)], 2)
    return Clusters(nearest.int(), centroids)


def _first(x: torch.Tensor) -> torch.Tensor:
    """The tokens that centroids begin at: the middle of each of so many runs. Zeros where there are no tokens."""
    length = x.shape[2]
    if length == 0:
        return x.new_zeros((*x.shape[:2], CLUSTERS, x.shape[3]))
    return x[:, :, (2 * torch.arange(CLUSTERS, device=x.device) + 1) * length // (2 * CLUSTERS)]


def _means(x: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """The mean of the tokens that are nearest to each centroid; the centroid itself where there are none."""
    number = torch.arange(CLUSTERS, device=x.device)
    sums = torch.zeros_like(centroids, dtype=torch.promote_types(x.dtype, torch.float32))
    counts = sums[..., :1].clone()
    for part in _parts(x):
        # A product adds up in the same order every time, as atomic sums do not.
        members = (_nearest(part, centroids)[..., None] == number).to(sums.dtype)
        sums += members.mT @ part.to(sums.dtype)
        counts += members.sum(2)[..., None]
    return torch.where(counts > 0, sums / counts.clamp_min(1), centroids).to(x.dtype)


def _nearest(x: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """The number of the nearest centroid of each token, the first of equals."""
    # From the middle of the centroids, where a product of few bits has the most to say.
    middle = centroids.mean(2, keepdim=True)
    apart = centroids - middle
    offset = (apart * (middle + apart / 2)).sum(-1, dtype=torch.promote_types(x.dtype, torch.float32))
    return (x @ apart.mT - offset[:, :, None]).argmax(-1)


def _parts(x: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tokens, so many at a time."""
    yield from x.split(max(1, CLUSTERED_AT_ONCE // (x.shape[0] * x.shape[1] * x.shape[3])), 2)
