"""The public calls: pyramid sparse attention on plain tensors."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

import torch
from torch.nn.functional import scaled_dot_product_attention

from ..ops.backends import check_backend, choose_backend
from ..ops.importance.estimators import mean
from ..ops.levels.rules import repair_empty_rows
from ..settings.config import PSAConfig
from ..settings.errors import ConfigError
from ..settings.sizes import BLOCK_M, BLOCK_N, Grid
from .plan import (
    check_levels,
    check_static,
)
from .steps import AttentionInfo, attend, sparse_attention


@overload
def pyramid_sparse_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig | None = None, *,
    grid: Grid | None = None, text_length: int = 0, static_levels: torch.Tensor | None = None,
    backend: str = "auto", return_info: Literal[False] = False,
) -> torch.Tensor: ...  # fmt: skip


@overload
def pyramid_sparse_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig | None = None, *,
    grid: Grid | None = None, text_length: int = 0, static_levels: torch.Tensor | None = None,
    backend: str = "auto", return_info: Literal[True],
) -> tuple[torch.Tensor, AttentionInfo]: ...  # fmt: skip


def pyramid_sparse_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: PSAConfig | None = None,
    *,
    grid: Grid | None = None,
    text_length: int = 0,
    static_levels: torch.Tensor | None = None,
    backend: str = "auto",
    return_info: bool = False,
) -> Any:
    """Pyramid Sparse Attention (arXiv 2512.04025): softmax attention in which key blocks of lesser importance are
    mean-pooled or skipped.

    ``reorder -> importance -> level map -> pyramid -> kernel -> restore order``. Deterministic, and torch's random
    state is left alone.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, H, Lk, D]``; any floating dtype, any strides. Queries and keys are rotated
            (RoPE) and normed already.
        config: settings; None for the defaults. What depends on steps, layers or ``min_tokens`` is the hosts' business.
            ``type="dense"`` runs torch's dense attention, to which no other setting or mask matters.
        grid: (frames, height, width) of the video in tokens; None leaves the sequence in the order it has, as a
            ``radial`` mask does.
        text_length: tokens in front of the video that keep full resolution.
        static_levels: uint8 ``[B | 1, H | 1, q_blocks, k_blocks]`` over the reordered sequence; blocks that it skips
            stay skipped, blocks that it keeps are never finer than it says.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``; ``"auto"`` is torch where gradients are wanted. They are those
            of attention over the level map, which itself has none.
        return_info: also return an :class:`AttentionInfo`.

    Returns:
        ``[B, H, Lq, D]`` in the dtype of q, or a pair of that and the info.

    Raises:
        ConfigError: shapes or settings do not fit; the message names which.
        BackendError: ``backend="triton"`` and the kernels cannot take these tensors, or gradients are wanted.
    """
    config = config if config is not None else PSAConfig()
    _check_tensors(q, k, v)
    if config.type == "dense":
        check_backend(backend)
        out = scaled_dot_product_attention(q, k, v)
        return (out, _dense_info(q, k, config)) if return_info else out
    _check_sequence(q, k, grid, text_length)
    check_static(config, q, k, grid, static_levels)
    if torch.compiler.is_compiling():
        # Not before: it takes torch's compiler along, which takes seconds to import.
        from .operator import compiled_attention

        out, levels, shares, chosen = compiled_attention(q, k, v, config, grid, text_length, static_levels, backend)
        return (out, AttentionInfo(levels, shares, chosen)) if return_info else out
    out, info = sparse_attention(q, k, v, config, grid, text_length, static_levels, backend)
    return (out, info()) if return_info else out


def attention_from_levels(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    levels: torch.Tensor,
    *,
    block_m: int,
    block_n: int,
    backend: str = "auto",
) -> torch.Tensor:
    """Exact pyramid attention for a given level map: ``softmax_j(q . k_j / sqrt(D) + ln c_j) v_j`` over the rows kept.

    A query block whose row keeps nothing attends to its most important key block (by block means) at full resolution.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, H, Lk, D]``; any floating dtype, any strides.
        levels: uint8 ``[B | 1, H | 1, ceil(Lq / block_m), ceil(Lk / block_n)]``: 0, or a power of two up to block_n.
        block_m, block_n: tokens a query block (64 or 128) and a key block (32, 64 or 128).
        backend: ``"auto"``, ``"triton"`` or ``"torch"``; ``"auto"`` is torch where gradients are wanted.

    Returns:
        ``[B, H, Lq, D]`` in the dtype of q.

    Raises:
        ConfigError: shapes or block sizes do not fit; the message names which. Level values are not read back from
            the device to be checked: anything but 0 and powers of two up to block_n is skipped.
        BackendError: ``backend="triton"`` and the kernels cannot take these tensors, or gradients are wanted.
    """
    _check_tensors(q, k, v)
    for key, value, allowed in (("block_m", block_m, BLOCK_M), ("block_n", block_n, BLOCK_N)):
        if value not in allowed:
            raise ConfigError(key, value, "must be one of " + ", ".join(map(str, allowed)))
    blocks = math.ceil(q.shape[2] / block_m), math.ceil(k.shape[2] / block_n)
    check_levels(levels, (*q.shape[:2], *blocks), "levels")
    backend = choose_backend(backend, q, k, v)
    levels = repair_empty_rows(levels, mean(q, k, block_m, block_n, backend))
    return attend(q, k, v, levels, block_m, block_n, block_n, backend)[0]


class PSAAttention(torch.nn.Module):
    """Drop-in attention module: ``out = PSAAttention(config)(q, k, v)``.

    Args:
        config: settings; None for the defaults.
        backend: as of :func:`pyramid_sparse_attention`.
    """

    def __init__(self, config: PSAConfig | None = None, backend: str = "auto") -> None:
        super().__init__()
        self.config = config if config is not None else PSAConfig()
        self.backend = backend

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        grid: Grid | None = None,
        text_length: int | None = None,
    ) -> torch.Tensor:
        """``[B, H, Lq, D]`` from q of that shape and k, v ``[B, H, Lk, D]``; Lq and Lk may differ.

        ``grid`` as of :func:`pyramid_sparse_attention`; ``text_length`` defaults to the config's.
        """
        length = self.config.text_length if text_length is None else text_length
        return pyramid_sparse_attention(q, k, v, self.config, grid=grid, text_length=length, backend=self.backend)

    def extra_repr(self) -> str:
        return f"{self.config}, backend={self.backend!r}"


def _dense_info(q: torch.Tensor, k: torch.Tensor, config: PSAConfig) -> AttentionInfo:
    """What a call did that ran dense: every block at level 1."""
    blocks = math.ceil(q.shape[2] / config.block_m), math.ceil(k.shape[2] / config.block_n)
    levels = torch.ones(*q.shape[:2], *blocks, dtype=torch.uint8, device=q.device)
    return AttentionInfo(levels, torch.ones(1, device=q.device), "torch")


def _check_tensors(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    for key, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4 or 0 in x.shape or not x.is_floating_point():
            raise ConfigError(key, f"{x.dtype} {list(x.shape)}", "must be floating point [B, H, L, D], none of them 0")
    if k.shape != v.shape or (q.shape[:2], q.shape[3]) != (k.shape[:2], k.shape[3]):
        shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        raise ConfigError("q, k, v", shapes, "must agree in batch, heads and head size, and k and v in length too")
    if len({(x.dtype, x.device) for x in (q, k, v)}) > 1:
        kinds = ", ".join(f"{x.dtype} on {x.device}" for x in (q, k, v))
        raise ConfigError("q, k, v", kinds, "must share one dtype and device")


def _check_sequence(q: torch.Tensor, k: torch.Tensor, grid: Grid | None, text_length: int) -> None:
    shorter = min(q.shape[2], k.shape[2])
    if not isinstance(text_length, int) or not 0 <= text_length <= shorter:
        raise ConfigError("text_length", text_length, f"must be a whole number between 0 and {shorter}")
    if grid is None:
        return
    if q.shape[2] != k.shape[2]:
        raise ConfigError("grid", grid, f"needs as many queries as keys, not {q.shape[2]} and {k.shape[2]}")
    if not isinstance(grid, tuple | list) or len(grid) != 3 or not all(isinstance(n, int) and n > 0 for n in grid):
        raise ConfigError("grid", grid, "must be three whole numbers, 1 or more: frames, height, width")
    if math.prod(grid) + text_length != q.shape[2]:
        raise ConfigError(
            "grid",
            tuple(grid),
            f"frames x height x width and {text_length} text tokens must make {q.shape[2]} tokens",
        )
