"""Orders by content: clusters of a head's queries, and of its keys, laid one after another."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ...settings.orders import HYBRID
from ...settings.sizes import Grid
from ..device_cache import device_cache
from .clusters import CLUSTERS, Clusters, cluster
from .tile import tile_numbers


class Content(NamedTuple):
    """Clusters of the video's tokens."""

    q: Clusters
    k: Clusters

    @property
    def centroids(self) -> Centroids:
        """From which a later call may start."""
        return Centroids(self.q.centroids, self.k.centroids)


class Centroids(NamedTuple):
    """Of the clusters of queries, and of those of keys, ``[B, H, CLUSTERS, D]`` each."""

    q: torch.Tensor
    k: torch.Tensor


def cluster_content(q: torch.Tensor, k: torch.Tensor, start: Centroids | None = None) -> Content:
    """The clusters of a call.

    Args:
        q: ``[B, H, Lq, D]``; k: ``[B, H, Lk, D]``; the video's tokens, any strides.
        start: centroids of an earlier call; None for clusters from nothing.
    """
    q_start, k_start = (None, None) if start is None else start
    return Content(cluster(q, q_start), cluster(k, k_start))


def content_index(
    method: str, nearest: torch.Tensor, grid: Grid | None, tile_size: Grid, start: int, behind: int = 0
) -> torch.Tensor:
    """The order of the tokens of each head, cluster after cluster; those of a cluster stay in the order they have.

    Blocks are cut from it as from any other order, so that some hold the end of one cluster and the beginning of the
    next: estimators tell the importance of what a block holds, and few clusters have few such seams.

    Args:
        method: ``"Semantic"``, or ``"Hybrid"``: tile after tile, and in each its clusters, which needs the grid.
        nearest: ``[B, H, L - start - behind]``, as in :class:`.clusters.Clusters`.
        grid, tile_size, start, behind: as in :func:`psa_core.ops.reorder.order_index`.

    Returns:
        int32 ``[B * H, L]``.
    """
    place = nearest.flatten(0, 1)
    if method == HYBRID:
        assert grid is not None
        place = place + CLUSTERS * _tiles(tuple(grid), tuple(tile_size), place.device)
    stop = start + place.shape[1]
    order = place.argsort(dim=-1, stable=True).int() + start
    others = torch.arange(stop + behind, dtype=torch.int32, device=place.device).expand(len(place), -1)
    return torch.cat([others[:, :start], order, others[:, stop:]], -1)


@device_cache(maxsize=16)
def _tiles(grid: Grid, tile_size: Grid, device: torch.device) -> torch.Tensor:
    """The number of each token's tile, int32 ``[frames * height * width]``."""
    return torch.from_numpy(tile_numbers(grid, tile_size)).to(device, torch.int32)
