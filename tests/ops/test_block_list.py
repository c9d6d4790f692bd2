"""Block lists: against a list written out row by row, and reading one gives the level map back."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from psa_core.ops.backends import triton_installed
from psa_core.ops.block_list.build import BlockList, build_block_list
from psa_core.ops.block_list.packing import TOKEN_BITS, TOKEN_MASK
from psa_core.ops.levels.rules import level_shares

from ..support.tensors import DEVICE, Shape, random_levels

BACKENDS = [
    "torch",
    pytest.param("triton", marks=pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")),
]


def oracle(row: list[int], n_levels: int, block_n: int, k_tokens: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Blocks of one row of a level map, and rows and tokens of the last row of each level."""
    blocks, spans = [], []
    for level in (1 << i for i in range(n_levels)):
        listed = [j for j, value in enumerate(row) if value == level]
        blocks += listed
        tokens = [
            min(start + level, (j + 1) * block_n, k_tokens) - start
            for j in listed
            for start in range(j * block_n, min((j + 1) * block_n, k_tokens), level)
        ]
        spans.append((len(tokens), tokens[-1]) if tokens else (0, 0))
    return blocks, spans


def check(block_list: BlockList, levels: torch.Tensor, k_tokens: int) -> None:
    """Every row of a list against the oracle."""
    assert block_list.blocks.dtype == block_list.spans.dtype == torch.int32
    assert block_list.blocks.shape == levels.shape
    assert block_list.spans.shape[:3] == levels.shape[:3]
    n_levels = block_list.spans.shape[3]
    rows = (x.cpu().flatten(0, 2).tolist() for x in (levels, block_list.blocks, block_list.spans))
    for row, listed, packed in zip(*rows, strict=True):
        blocks, spans = oracle(row, n_levels, block_list.block_n, k_tokens)
        assert listed[: len(blocks)] == blocks
        assert [(span >> TOKEN_BITS, span & TOKEN_MASK) for span in packed] == spans
    order = block_list.order.tolist()
    assert sorted(order) == list(range(len(order)))
    kept = (block_list.spans >> TOKEN_BITS).sum(-1).flatten()[order]
    # To half an octave; what keeps hardly anything comes last in any order.
    kept = kept.clamp(min=max(1, k_tokens / 64))
    assert (kept[1:] <= 1.415 * kept[:-1]).all()


@pytest.mark.parametrize("backend", BACKENDS)
class TestBlockList:
    @hypothesis.settings(max_examples=60)
    @hypothesis.given(st.data())
    def test_against_the_oracle(self, backend: str, data: st.DataObject) -> None:
        block_n = data.draw(st.sampled_from([32, 64, 128]))
        max_level = data.draw(st.sampled_from([level for level in (1, 2, 8, 32, 128) if level <= block_n]))
        valid = [0, *(1 << i for i in range(max_level.bit_length()))]
        k_blocks = data.draw(st.integers(1, 9))
        k_tokens = k_blocks * block_n - data.draw(st.integers(0, block_n - 1))
        row = st.lists(st.sampled_from([*valid, 3, 64, 128, 200, 255]), min_size=k_blocks, max_size=k_blocks)
        rows = data.draw(st.lists(row, min_size=1, max_size=4))
        levels = torch.tensor(rows, dtype=torch.uint8, device=DEVICE)[None, None]
        block_list = build_block_list(levels, max_level, block_n, k_tokens, backend)
        assert block_list.spans.shape[3] == max_level.bit_length()
        check(block_list, levels, k_tokens)
        skipped = torch.isin(levels, torch.tensor(valid, dtype=torch.uint8, device=DEVICE), invert=True)
        flat = levels.masked_fill(skipped, 0).flatten().tolist()
        expected = [flat.count(level) / len(flat) for level in valid[1:]]
        assert block_list.level_shares().tolist() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("k_blocks", [1, 2, 3, 507, 600, 1024, 2500])
    def test_lengths(self, k_blocks: int, backend: str) -> None:
        k_tokens = 32 * k_blocks - int(torch.randint(32, ()))
        levels = random_levels(Shape(2, 1, 128, k_tokens, 64, 64, 32))
        check(build_block_list(levels, 32, 32, k_tokens, backend), levels, k_tokens)

    @pytest.mark.parametrize("level", [0, 1, 8])
    def test_all_of_one_level(self, level: int, backend: str) -> None:
        levels = torch.full((1, 1, 2, 300), level, dtype=torch.uint8, device=DEVICE)
        block_list = build_block_list(levels, 8, 64, 300 * 64 - 13, backend)
        check(block_list, levels, 300 * 64 - 13)
        assert block_list.level_shares().tolist() == [float(level == 1 << i) for i in range(4)]

    def test_any_strides(self, backend: str) -> None:
        levels = random_levels(Shape(2, 3, 300, 320, 64, 64, 32))
        for view in (levels.mT, levels[:, :, ::2, 1::3], levels[:1].expand(2, -1, -1, -1), levels.transpose(0, 1)):
            k_tokens = 32 * view.shape[3] - 5
            check(build_block_list(view, 32, 32, k_tokens, backend), view, k_tokens)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 1)])
    def test_a_map_for_every_head_stays_one(self, shape: tuple[int, int], backend: str) -> None:
        levels = random_levels(Shape(*shape, 300, 320, 64, 64, 32))
        block_list = build_block_list(levels, 32, 32, 320, backend)
        assert block_list.blocks.shape[:2] == block_list.spans.shape[:2] == shape


@pytest.mark.parametrize("backend", BACKENDS)
def test_shares_need_no_wait(backend: str) -> None:
    levels = random_levels(Shape(2, 3, 300, 320, 64, 64, 32))
    shares = build_block_list(levels, 32, 32, 320, backend).level_shares()
    assert shares.dtype == torch.float32
    assert shares.device == levels.device
    torch.testing.assert_close(shares, level_shares(levels, 32))
