"""K-means from its definition, token by token in float64: the oracle of :mod:`.clusters`."""

from __future__ import annotations

import torch

from .clusters import CLUSTERS, FIT_STRIDE, ITERATIONS, ITERATIONS_AGAIN, Clusters


def cluster_naive(x: torch.Tensor, start: torch.Tensor | None = None) -> Clusters:
    """The clusters of each head; arguments and result as in :func:`psa_core.ops.reorder.clusters.cluster`."""
    x = x.double()
    length = x.shape[2]
    middles = [(2 * c + 1) * length // (2 * CLUSTERS) for c in range(CLUSTERS)]
    centroids = (x[:, :, middles] if start is None else start.double()).clone()
    for b in range(x.shape[0]):
        for h in range(x.shape[1]):
            for _ in range(ITERATIONS if start is None else ITERATIONS_AGAIN):
                sample = x[b, h, ::FIT_STRIDE]
                nearest = _distances(sample, centroids[b, h]).argmin(-1)
                for c in nearest.unique():
                    centroids[b, h, c] = sample[nearest == c].mean(0)
    return Clusters(_distances(x, centroids).argmin(-1).int(), centroids)


def _distances(x: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Squared distances of tokens ``[..., L, D]`` to centroids ``[..., C, D]``."""
    return (x[..., :, None, :] - centroids[..., None, :, :]).square().sum(-1)
