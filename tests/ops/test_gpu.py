"""The kernels on a GPU, at the shapes of real models, against float32 attention computed block by block."""

from __future__ import annotations

import math

import pytest
import torch

from psa_core import PSAConfig, attention_from_levels, compose, pyramid_sparse_attention
from psa_core.attention.plan import plan_levels
from psa_core.attention.steps import attend
from psa_core.ops.attention import dispatch
from psa_core.ops.importance.by_head import importance_by_head
from psa_core.ops.importance.estimators import ESTIMATORS, Estimator, sampled_max
from psa_core.ops.importance.sub_blocks import sub_block_mass
from psa_core.ops.levels.bounds import Quotas
from psa_core.ops.levels.rules import levels_from_importance
from psa_core.ops.pyramid.triton import block_means_triton
from psa_core.ops.reorder import Orders, order_index, reorder_orders
from psa_core.ops.reorder.orders import first_order
from psa_core.settings.sinks import text_in_front

from ..support.tensors import Shape, heads_alone, random_levels, random_qkv, relative_error

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda", 0)
RATIOS = {1: (0.0, 0.2), 2: (0.2, 0.35), 4: (0.35, 0.5), 8: (0.5, 0.8), 0: (0.8, 1.0)}
# Rounding of the pooled rows, the weights and the output to the dtype.
BOUND = {torch.bfloat16: 1e-2, torch.float16: 2e-3}

COGVIDEO, WAN = 17_776, 32_760
CASES = [
    (Shape(2, 3, COGVIDEO, COGVIDEO, 64, 128, 128), torch.bfloat16),
    (Shape(1, 3, COGVIDEO, COGVIDEO, 64, 128, 64), torch.float16),
    (Shape(1, 3, COGVIDEO, COGVIDEO, 64, 128, 32), torch.bfloat16),
    (Shape(2, 2, WAN, WAN, 128, 128, 128), torch.bfloat16),
    (Shape(1, 2, WAN, WAN, 128, 128, 64), torch.bfloat16),
    (Shape(1, 2, WAN, WAN, 128, 128, 32), torch.float16),
    (Shape(2, 2, 5001, 5001, 128, 64, 32), torch.bfloat16),
    (Shape(2, 2, 5001, 5001, 64, 64, 128), torch.float16),
    (Shape(2, 3, 1000, 4099, 64, 128, 32), torch.bfloat16),
    (Shape(2, 3, 100, 20, 128, 128, 64), torch.bfloat16),
    (Shape(1, 1, 1, 1, 64, 64, 128), torch.float16),
]


@pytest.fixture(params=["chosen", "portable"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel that this GPU gets, then the one for every GPU."""
    if request.param == "portable":
        monkeypatch.setattr(dispatch, "hopper_refusal", lambda *_: "a test of the portable kernel")
    elif torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("this GPU gets the portable kernel")
    else:
        assert dispatch.hopper_refusal(CUDA, torch.bfloat16, 128) is None


def from_projections(shape: Shape, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values as models hand them over: views of ``[B, L, H * D]``, keys and values of one tensor."""
    b, h, d = shape.batch, shape.heads, shape.d
    q = 2 * torch.randn(b, shape.q_tokens, h * d, device=CUDA)
    kv = torch.randn(b, shape.k_tokens, 2 * h * d, device=CUDA)
    kv[..., h * d :] += 0.5
    return tuple(x.unflatten(-1, (h, d)).transpose(1, 2) for x in (q.to(dtype), *kv.to(dtype).chunk(2, -1)))


def pooled(x: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Group means of ``[L, D]`` in float32, and the number of tokens in each group."""
    groups = math.ceil(len(x) / level)
    ones = torch.nn.functional.pad(x.new_ones(len(x), dtype=torch.float32), (0, groups * level - len(x)))
    padded = torch.nn.functional.pad(x.float(), (0, 0, 0, groups * level - len(x)))
    count = ones.view(groups, level).sum(1)
    return padded.view(groups, level, -1).sum(1) / count[:, None], count


def reference_head(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, levels: torch.Tensor, shape: Shape, query_blocks: list[int],
    causal: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Attention of some query blocks of one head, in float32; q, k, v ``[L, D]``, levels ``[q_blocks, k_blocks]``.

    With ``causal`` the last query stands at the last key, and a key behind a query is masked.
    """
    k_rows, v_rows, level_of, block_of, bias = [], [], [], [], []
    for level in (1 << i for i in range(shape.block_n.bit_length())):
        rows, count = pooled(k, level)
        k_rows.append(rows)
        v_rows.append(pooled(v, level)[0])
        level_of.append(torch.full_like(count, level, dtype=torch.uint8))
        block_of.append(torch.arange(len(count), device=q.device) * level // shape.block_n)
        bias.append(count.log())
    keys, values, level_of, block_of, bias = (torch.cat(x) for x in (k_rows, v_rows, level_of, block_of, bias))
    out = []
    for i in query_blocks:
        queries = q[i * shape.block_m : (i + 1) * shape.block_m].float()
        logits = queries @ keys.T / math.sqrt(shape.d) + bias
        logits = logits.masked_fill(levels[i, block_of] != level_of, -torch.inf)
        if causal:
            position = i * shape.block_m + torch.arange(len(queries), device=q.device) + len(k) - len(q)
            behind = torch.arange(len(k), device=q.device) > position[:, None]
            logits[:, : len(k)].masked_fill_(behind, -torch.inf)
        out.append(logits.softmax(-1) @ values)
    return torch.cat(out)


def reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, levels: torch.Tensor, shape: Shape, causal: bool = False
) -> torch.Tensor:
    levels = levels.expand(shape.batch, shape.heads, -1, -1)
    blocks = list(range(shape.blocks[0]))
    k, v = (x.repeat_interleave(shape.heads // x.shape[1], 1) for x in (k, v))
    heads = [
        reference_head(q[b, h], k[b, h], v[b, h], levels[b, h], shape, blocks, causal)
        for b in range(shape.batch)
        for h in range(shape.heads)
    ]
    return torch.stack(heads).view(q.shape)


def settings(shape: Shape) -> PSAConfig:
    return PSAConfig(block_m=shape.block_m, block_n=shape.block_n, mask_ratios=RATIOS)


@pytest.mark.parametrize("planned", [False, True], ids=["random levels", "levels from importance"])
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_attention_equals_its_definition(shape: Shape, dtype: torch.dtype, planned: bool) -> None:
    q, k, v = from_projections(shape, dtype)
    if planned:
        text = 226 if shape.k_tokens == COGVIDEO else 0
        levels = plan_levels(q, k, settings(shape), text_in_front(text), backend="triton")
    else:
        levels = random_levels(shape, CUDA)
    out = attention_from_levels(q, k, v, levels, block_m=shape.block_m, block_n=shape.block_n, backend="triton")
    assert relative_error(out, reference(q, k, v, levels, shape)) < BOUND[dtype]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("case", ["contiguous", "tokens innermost", "every second number", "expanded batch"])
def test_attention_takes_any_strides(case: str) -> None:
    shape = Shape(2, 2, 2001, 2001, 128, 128, 64)
    view = {
        "contiguous": lambda x: x.contiguous(),
        "tokens innermost": lambda x: x.mT.contiguous().mT,
        "every second number": lambda x: torch.stack([x, torch.full_like(x, float("nan"))], -1)[..., 0],
        "expanded batch": lambda x: x[:1].expand(x.shape),
    }[case]
    q, k, v = (view(x) for x in random_qkv(shape, torch.bfloat16, CUDA))
    levels = random_levels(shape, CUDA)[:, :1]
    out = attention_from_levels(q, k, v, levels, block_m=128, block_n=64, backend="triton")
    assert relative_error(out, reference(q, k, v, levels, shape)) < BOUND[torch.bfloat16]


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_importance_equals_torch(estimator: Estimator, shape: Shape, dtype: torch.dtype) -> None:
    q, k, _ = from_projections(shape, dtype)
    out = estimator(q, k, shape.block_m, shape.block_n, "triton", None)
    # Means of runs are rounded to the tensors' dtype, where sums in another order may fall on the other side.
    bound = 1e-3 if estimator is sub_block_mass else 1e-4
    assert relative_error(out, estimator(q, k, shape.block_m, shape.block_n, "torch", None)) < bound


@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_importance_by_head_equals_each_estimator(shape: Shape, dtype: torch.dtype) -> None:
    q, k, _ = from_projections(shape, dtype)
    numbers = torch.arange(shape.batch * shape.heads, device=CUDA) % len(ESTIMATORS)
    of_head = numbers.int().view(shape.batch, shape.heads)
    out = importance_by_head(q, k, shape.block_m, shape.block_n, tuple(ESTIMATORS), of_head, "triton")
    for number, estimate in enumerate(ESTIMATORS.values()):
        its_own = of_head == number
        expected = estimate(q, k, shape.block_m, shape.block_n, "triton", None)
        assert torch.equal(out[its_own], expected[its_own])


WHOLE = [
    (Shape(2, 2, COGVIDEO, COGVIDEO, 64, 128, 32), (13, 30, 45), 226, torch.bfloat16, {}),
    (Shape(1, 3, WAN, WAN, 128, 128, 128), (21, 30, 52), 0, torch.bfloat16, {"use_sim_mask": True}),
    (Shape(1, 3, WAN, WAN, 128, 128, 64), (21, 30, 52), 0, torch.float16, {"mask_mode": "topk"}),
    (Shape(2, 3, WAN, WAN, 128, 128, 32), (21, 30, 52), 0, torch.bfloat16, {"importance": "mean"}),
    (Shape(1, 3, WAN, WAN, 64, 64, 32), (21, 30, 52), 0, torch.bfloat16, {"importance": "mean", "mask_mode": "topk"}),
]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("shape", "grid", "text", "dtype", "changes"), WHOLE)
def test_whole_op_equals_its_steps(
    shape: Shape, grid: tuple[int, int, int], text: int, dtype: torch.dtype, changes: dict
) -> None:
    config = settings(shape).replace(**changes)
    q, k, v = from_projections(shape, dtype)
    out, info = pyramid_sparse_attention(q, k, v, config, grid=grid, text_length=text, return_info=True)
    assert info.backend == "triton"
    assert (info.levels != 0).any(-1).all()
    orders = reorder_orders(config, grid, text, shape.batch, shape.heads, q.device)
    assert orders is not None
    q, k, v = (orders.take(x) for x in (q, k, v))
    assert relative_error(orders.take(out), reference(q, k, v, info.levels, shape)) < BOUND[dtype]
    # Importances a rounding error apart may rank otherwise in torch.
    assert (plan_levels(q, k, config, text_in_front(text)) != info.levels).float().mean() < 1e-3


IN_ORDERS = [
    (Shape(2, 4, COGVIDEO, COGVIDEO, 64, 128, 32), (13, 30, 45), 226, torch.bfloat16),
    (Shape(2, 3, WAN, WAN, 128, 128, 128), (21, 30, 52), 0, torch.float16),
    (Shape(2, 4, 5003, 5003, 128, 64, 64), (7, 25, 28), 103, torch.bfloat16),
    (Shape(1, 4, 77, 77, 64, 128, 64), (1, 7, 10), 7, torch.float16),
]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("shape", "grid", "text", "dtype"), IN_ORDERS)
def test_each_head_in_its_order_as_alone(
    shape: Shape, grid: tuple[int, int, int], text: int, dtype: torch.dtype
) -> None:
    config = settings(shape).replace(use_sim_mask=True)
    q, k, v = from_projections(shape, dtype)
    of_head = torch.arange(shape.batch * shape.heads, dtype=torch.int32, device=CUDA).view(shape.batch, -1) % 3
    orders = Orders(order_index(("Gilbert", "Raster", "Tile"), grid, (2, 8, 8), text, CUDA), of_head)

    def run(head: tuple[slice, ...], orders: Orders) -> tuple[torch.Tensor, torch.Tensor]:
        levels = plan_levels(q[head], k[head], config, text_in_front(text), backend="triton", orders=orders)
        sizes = shape.block_m, shape.block_n, max(config.levels)
        return levels, attend(q[head], k[head], v[head], levels, *sizes, "triton", orders)[0]

    levels, out = run((), orders)
    reordered = (orders.take(x) for x in (q, k, v))
    assert relative_error(orders.take(out), reference(*reordered, levels, shape)) < BOUND[dtype]
    for head, order in heads_alone(orders):
        levels_alone, alone = run(head, order)
        assert torch.equal(levels[head], levels_alone)
        assert torch.equal(out[head], alone)


def test_static_levels() -> None:
    shape = Shape(2, 2, 5001, 5001, 64, 128, 64)
    q, k, v = from_projections(shape, torch.bfloat16)
    static = random_levels(shape, CUDA)[:1, :1]
    out, info = pyramid_sparse_attention(q, k, v, settings(shape), static_levels=static, return_info=True)
    assert (compose(info.levels, static) == info.levels).all()
    assert relative_error(out, reference(q, k, v, info.levels, shape)) < BOUND[torch.bfloat16]


def test_levels_by_quotas_equal_torch() -> None:
    importance = torch.randn(2, 12, 256, 1000, device=CUDA).softmax(-1)
    ends = torch.randint(1001, (2, 12, 3), device=CUDA).sort(-1).values
    ends[0, 0], ends[0, 1] = 0, 1000
    quotas, config = Quotas((1, 2, 8, 0), ends[:, :, None].int()), PSAConfig()
    levels = levels_from_importance(importance, config, backend="triton", quotas=quotas)
    assert torch.equal(levels, levels_from_importance(importance, config, backend="torch", quotas=quotas))


def test_float32_runs_in_torch() -> None:
    shape = Shape(1, 2, 1001, 1001, 64, 128, 64)
    q, k, v = random_qkv(shape, torch.float32, CUDA)
    out, info = pyramid_sparse_attention(q, k, v, settings(shape), return_info=True)
    assert info.backend == "torch"
    assert relative_error(out, reference(q, k, v, info.levels, shape)) < 1e-5


@pytest.mark.parametrize("method", ["Gilbert", "Semantic", "Hybrid"])
@pytest.mark.parametrize("d", [64, 128])
def test_repeats_bit_for_bit_and_leaves_random_states_alone(d: int, method: str) -> None:
    shape = Shape(1, 6, COGVIDEO, COGVIDEO, d, 128, 64)
    config = settings(shape).replace(use_sim_mask=True, rearrange_method=method)
    q, k, v = from_projections(shape, torch.bfloat16)
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    outs = [pyramid_sparse_attention(q, k, v, config, grid=(13, 30, 45), text_length=226) for _ in range(3)]
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(torch.cuda.get_rng_state(), states[1])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mask_mode": "topk"},
        {"use_sim_mask": True},
        {"importance": "mean"},
        {"rearrange_method": "Semantic"},
        {"rearrange_method": "Hybrid"},
    ],
)
def test_never_waits_for_the_gpu(changes: dict) -> None:
    shape = Shape(1, 2, 4000, 4000, 64, 128, 64)
    qkv = from_projections(shape, torch.bfloat16)
    config = settings(shape).replace(**changes)
    pyramid_sparse_attention(*qkv, config, grid=(5, 20, 39), text_length=100, return_info=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pyramid_sparse_attention(*qkv, config, grid=(5, 20, 39), text_length=100, return_info=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_estimators_and_quotas_by_head_never_wait_for_the_gpu(backend: str) -> None:
    q, k, _ = from_projections(Shape(1, 3, 4000, 4000, 64, 128, 64), torch.bfloat16)
    of_head = torch.arange(3, dtype=torch.int32, device=CUDA)[None]
    quotas = Quotas((1, 8, 0), torch.tensor([[[[0, 9]], [[5, 5]], [[7, 63]]]], dtype=torch.int32, device=CUDA))

    def choose() -> None:
        importance = importance_by_head(q, k, 128, 64, tuple(ESTIMATORS), of_head, backend)
        levels_from_importance(importance, PSAConfig(block_n=64), backend=backend, quotas=quotas)

    choose()
    torch.cuda.set_sync_debug_mode("error")
    try:
        choose()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_more_than_two_to_the_31_numbers() -> None:
    shape = Shape(1, 48, 360_000, 360_000, 128, 128, 128)
    if torch.cuda.mem_get_info()[0] < 90 << 30:
        pytest.skip("needs 90 GB of free GPU memory")
    # Views of [L, H * D]: the last tokens of every head lie past 2**31, and so do pooled rows of the last head.
    q, k, v = (
        torch.randn(1, 360_000, 48, 128, dtype=torch.bfloat16, device=CUDA).mul_(scale).transpose(1, 2)
        for scale in (2, 1, 1)
    )
    q_blocks, k_blocks = shape.blocks
    levels = torch.zeros(1, 1, q_blocks, k_blocks, dtype=torch.uint8, device=CUDA)
    for level in (1 << i for i in range(8)):
        levels.scatter_(-1, torch.randint(k_blocks, (1, 1, q_blocks, 4), device=CUDA), level)
    levels[..., -1] = 1
    levels[..., -2] = 8
    out = attention_from_levels(q, k, v, levels, block_m=128, block_n=128, backend="triton")
    assert out.isfinite().all()
    blocks = [0, q_blocks // 2, q_blocks - 1]
    rows = torch.cat([torch.arange(360_000, device=CUDA)[i * 128 : (i + 1) * 128] for i in blocks])
    for h in (0, 46, 47):
        expected = reference_head(q[0, h], k[0, h], v[0, h], levels[0, 0], shape, blocks)
        assert relative_error(out[0, h, rows], expected) < BOUND[torch.bfloat16]
    del out
    scores = sampled_max(q[:, 46:], k[:, 46:], 128, 128, "triton")
    assert scores.isfinite().all()
    assert relative_error(scores[:, 1:], sampled_max(q[:, 47:], k[:, 47:], 128, 128, "torch")) < 1e-4
    backwards = Orders(torch.arange(360_000, device=CUDA).flip(0)[None], first_order(1, 2, CUDA))
    means = block_means_triton(q[:, 46:], 128, backwards)
    expected = torch.nn.functional.avg_pool1d(q[0, 46:].flip(1).float().mT, 128, ceil_mode=True).mT
    assert relative_error(means[0], expected) < 1e-4


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_runs_where_the_tensors_are() -> None:
    shape = Shape(1, 2, 1001, 1001, 64, 128, 64)
    other = torch.device("cuda", 1)
    q, k, v = random_qkv(shape, torch.bfloat16, other)
    assert torch.cuda.current_device() == 0
    out, info = pyramid_sparse_attention(q, k, v, settings(shape), grid=(7, 11, 13), return_info=True)
    assert info.backend == "triton"
    assert out.device == other
    here = pyramid_sparse_attention(*(x.to(CUDA) for x in (q, k, v)), settings(shape), grid=(7, 11, 13))
    assert torch.equal(out.to(CUDA), here)
