"""Heads in orders of their own, in one call of every kernel: each as the whole op treats it alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from psa_core import PSAConfig, pyramid_sparse_attention
from psa_core.attention.plan import plan_levels
from psa_core.attention.steps import attend
from psa_core.ops.backends import triton_installed
from psa_core.ops.reorder import Orders, order_index
from psa_core.settings.sinks import text_in_front

from ..support.tensors import DEVICE, Shape, heads_alone, random_qkv

if not triton_installed():
    pytest.skip("Triton is not installed", allow_module_level=True)

METHODS = ("Gilbert", "Raster", "Tile")
TILE = (2, 3, 4)


def only(config: PSAConfig, method: str) -> PSAConfig:
    """The config that takes all heads in one order."""
    if method == "Raster":
        return config.replace(use_rearrange=False)
    return config.replace(rearrange_method=method, tile_size=TILE)


@pytest.mark.parametrize(
    ("shape", "grid", "text", "changes"),
    [
        (Shape(2, 2, 193, 193, 64, 64, 32), (3, 9, 7), 4, {"use_sim_mask": True}),
        (Shape(1, 3, 141, 141, 128, 128, 32), (4, 5, 7), 1, {"mask_mode": "topk"}),
        (Shape(1, 3, 180, 180, 64, 128, 64), (5, 6, 6), 0, {"importance": "sampled_sum"}),
    ],
)
def test_each_head_as_the_op_alone(
    shape: Shape, grid: tuple[int, int, int], text: int, changes: dict[str, Any]
) -> None:
    config = PSAConfig(
        block_m=shape.block_m,
        block_n=shape.block_n,
        mask_ratios={1: (0.0, 0.2), 2: (0.2, 0.4), 8: (0.4, 0.8), 0: (0.8, 1.0)},
        **changes,
    )
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in random_qkv(shape, torch.float16))
    of_head = torch.arange(shape.batch * shape.heads, dtype=torch.int32, device=DEVICE).view(shape.batch, -1) % 3
    orders = Orders(order_index(METHODS, grid, TILE, text, DEVICE), of_head)

    levels = plan_levels(q, k, config, text_in_front(text), backend="triton", orders=orders)
    out, _ = attend(q, k, v, levels, shape.block_m, shape.block_n, 8, "triton", orders)

    for head, _ in heads_alone(orders):
        alone = only(config, METHODS[of_head[head].item()])
        expected, info = pyramid_sparse_attention(
            q[head], k[head], v[head], alone, grid=grid, text_length=text, backend="triton", return_info=True
        )
        assert torch.equal(levels[head], info.levels)
        assert torch.equal(out[head], expected)
