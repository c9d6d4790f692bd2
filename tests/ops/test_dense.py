"""Dense attention by torch's own kernels."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from psa_core.ops.attention import dense
from psa_core.ops.attention.dense import dense_attention, few_queries_attention

from ..support.tensors import Shape, random_qkv, relative_error, softmax_attention

BOUND = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-4, torch.float64: 1e-12}


class Operators(TorchDispatchMode):
    """Names of the operators that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__.partition(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("attention", [dense_attention, few_queries_attention])
@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(("tokens", "d", "kv_heads"), [((64, 777), 64, 4), ((30, 131), 128, 2), ((1, 1), 44, 1)])
def test_equals_its_definition(
    attention: Any, dtype: torch.dtype, tokens: tuple[int, int], d: int, kv_heads: int
) -> None:
    q, k, v = random_qkv(Shape(2, 4, *tokens, d), dtype)
    # Heads inside tokens, as models have them.
    k, v = (x[:, :kv_heads].transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v))
    expected = softmax_attention(q, *(x.repeat_interleave(4 // kv_heads, 1) for x in (k, v)))
    found = attention(q, k, v)
    assert (found.shape, found.dtype) == (q.shape, dtype)
    assert relative_error(found, expected) < BOUND[dtype]


@pytest.mark.parametrize(("d", "there", "shares"), [(128, True, True), (128, False, False), (44, True, False)])
def test_few_queries_share_keys_out_where_torch_can(
    d: int, there: bool, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by tensors that need no GPU."""
    if torch.cuda.is_available() and not shares:
        pytest.skip("torch chooses the same operator here")
    monkeypatch.setattr(dense, "can_use_flash_attention", lambda _: there)
    monkeypatch.setattr(torch.cuda, "device_of", nullcontext)
    with FakeTensorMode(), Operators() as operators:
        q, k = (torch.empty(2, *size, d, device="cuda", dtype=torch.float16) for size in ((4, 64), (2, 777)))
        assert few_queries_attention(q, k, k).shape == q.shape
    assert ("_scaled_dot_product_flash_attention" in operators.names) == shares
