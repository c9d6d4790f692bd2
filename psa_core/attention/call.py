"""The public calls: pyramid sparse attention on plain tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, overload

import torch

from ..ops.attention.dense import causal_attention, dense_attention
from ..ops.backends import check_backend, choose_backend
from ..ops.causal import Causal, causal_levels, hidden_keys
from ..ops.importance.estimators import mean
from ..ops.levels.rules import repair_empty_rows
from ..ops.modes import is_traced
from ..settings.calibration import Calibration, check_calibration
from ..settings.config import PSAConfig, check_config
from ..settings.errors import ConfigError
from ..settings.orders import SEMANTIC
from ..settings.sizes import BLOCK_M, BLOCK_N, Grid
from .attend import attend
from .calibrate import given_choice
from .checks import check_call, check_levels, check_tensors
from .steps import AttentionInfo, sparse_attention

SinkRanges = Sequence[tuple[int, int, bool]]

# Made here, because torch 2.5 compiles no check of them.
_DEFAULTS = PSAConfig()


@overload
def pyramid_sparse_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig | None = None, *,
    grid: Grid | None = None, text_length: int = 0, sinks: SinkRanges = (),
    static_levels: torch.Tensor | None = None, backend: str = "auto", calibration: Calibration | None = None,
    causal: bool = False, return_info: Literal[False] = False,
) -> torch.Tensor: ...  # fmt: skip


@overload
def pyramid_sparse_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig | None = None, *,
    grid: Grid | None = None, text_length: int = 0, sinks: SinkRanges = (),
    static_levels: torch.Tensor | None = None, backend: str = "auto", calibration: Calibration | None = None,
    causal: bool = False, return_info: Literal[True],
) -> tuple[torch.Tensor, AttentionInfo]: ...  # fmt: skip


def pyramid_sparse_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: PSAConfig | None = None,
    *,
    grid: Grid | None = None,
    text_length: int = 0,
    sinks: SinkRanges = (),
    static_levels: torch.Tensor | None = None,
    backend: str = "auto",
    calibration: Calibration | None = None,
    causal: bool = False,
    return_info: bool = False,
) -> Any:
    """Pyramid Sparse Attention (arXiv 2512.04025): softmax attention in which key blocks of lesser importance are
    mean-pooled or skipped.

    ``reorder -> importance -> level map -> pyramid -> kernel -> restore order``. Deterministic, and torch's random
    state is left alone.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``, where Hk divides H, and head h of q reads head ``h // (H / Hk)``
            of k and v; any floating dtype, any strides. Queries and keys are rotated (RoPE) and normed already. Orders
            other than raster, and ``mask_mode="calibrated"``, copy k and v for every head of q unless ``causal``.
        config: settings; None for the defaults. What depends on steps, layers or ``min_tokens`` is the hosts' business.
            ``type="dense"`` runs torch's dense attention, to which no other setting or mask matters.
        grid: (frames, height, width) of the video in tokens; None leaves the sequence in the order it has, but for
            ``"Semantic"``, as a ``radial`` mask does for all.
        text_length: tokens in front of the video that keep full resolution, as keys and as queries.
        sinks: more such tokens, in front of the video or behind it, one range behind the other, each as ``(start, stop,
            dense_rows)``: every query sees the keys from start up to stop at full resolution, and with ``dense_rows``
            their queries see everything so.
            The video begins at the first token that is none of these, which stay where they are.
        static_levels: uint8 ``[B | 1, H | 1, q_blocks, k_blocks]`` over the reordered sequence; blocks that it skips
            stay skipped, blocks that it keeps are never finer than it says.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``; ``"auto"`` is torch where gradients are wanted. They are those
            of attention over the level map, which itself has none.
        calibration: recipes of the heads, of one layer, which ``mask_mode="calibrated"`` takes instead of measuring
            which; None for measuring in every call.
        causal: query i sees the keys up to ``i + Lk - Lq`` alone, so that the last of both stand together. The key
            blocks that hold a query block's own positions are at level 1, and all others that it sees lie wholly in
            the past of all its queries. No token after it changes what comes of a query block, but where a call
            measures its calibration itself or quantises (``precision``), whose scales are those of all tokens. Sinks
            are positions of keys; ``grid`` and ``"Semantic"`` are not taken, since tokens stay as they lie.
        return_info: also return an :class:`AttentionInfo`.

    Returns:
        ``[B, H, Lq, D]`` in the dtype of q, or a pair of that and the info.

    Raises:
        ConfigError: shapes or settings do not fit; the message names which.
        BackendError: ``backend="triton"`` and the kernels cannot take these tensors, or gradients are wanted.
    """
    config = config if config is not None else _DEFAULTS
    check_config(config)
    if config.type == "dense":
        check_tensors(q, k, v, causal)
        check_backend(backend)
        out = causal_attention(q, k, v) if causal else dense_attention(q, k, v)
        return (out, _dense_info(q, k, config, causal)) if return_info else out
    every_sink = check_call(q, k, v, config, grid, text_length, sinks, static_levels, causal)
    if calibration is not None:
        _check_calibration(calibration, q, config, grid, causal)
    if is_traced():
        # Not before: it takes torch's compiler along, which takes seconds to import.
        from .operator import compiled_attention

        rest = grid, every_sink, static_levels, backend, calibration, causal
        out, levels, shares, chosen, precision = compiled_attention(q, k, v, config, *rest)
        return (out, AttentionInfo(levels, shares, chosen, None, precision)) if return_info else out
    choice = None if calibration is None else given_choice(calibration, q, config)
    attended = sparse_attention(q, k, v, config, grid, every_sink, static_levels, backend, choice, causal=causal)
    return (attended.out, attended.info()) if return_info else attended.out


def attention_from_levels(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    levels: torch.Tensor,
    *,
    block_m: int,
    block_n: int,
    backend: str = "auto",
    causal: bool = False,
) -> torch.Tensor:
    """Exact pyramid attention for a given level map: ``softmax_j(q . k_j / sqrt(D) + ln c_j) v_j`` over the rows kept.

    A query block whose row keeps nothing attends to its most important key block (by block means) at full resolution.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``, where Hk divides H; any floating dtype, any strides.
        levels: uint8 ``[B | 1, H | 1, ceil(Lq / block_m), ceil(Lk / block_n)]``: 0, or a power of two up to block_n.
        block_m, block_n: tokens a query block (64 or 128) and a key block (32, 64 or 128).
        backend: ``"auto"``, ``"triton"`` or ``"torch"``; ``"auto"`` is torch where gradients are wanted.
        causal: query i sees the keys up to ``i + Lk - Lq`` alone. Whatever the map says, key blocks that hold positions
            of a query block's queries are at level 1, and those behind them are skipped.

    Returns:
        ``[B, H, Lq, D]`` in the dtype of q.

    Raises:
        ConfigError: shapes or block sizes do not fit; the message names which. Level values are not read back from
            the device to be checked: anything but 0 and powers of two up to block_n is skipped.
        BackendError: ``backend="triton"`` and the kernels cannot take these tensors, or gradients are wanted.
    """
    check_tensors(q, k, v, causal)
    for key, value, allowed in (("block_m", block_m, BLOCK_M), ("block_n", block_n, BLOCK_N)):
        if value not in allowed:
            raise ConfigError(key, value, "must be one of " + ", ".join(map(str, allowed)))
    blocks = math.ceil(q.shape[2] / block_m), math.ceil(k.shape[2] / block_n)
    check_levels(levels, (*q.shape[:2], *blocks), q.device, "levels")
    backend = choose_backend(backend, q, k, v)
    hidden = None
    if causal:
        mask = Causal(q.shape[2], k.shape[2], block_m, block_n)
        levels, hidden = causal_levels(levels, mask), hidden_keys(mask, q.device)
    else:
        levels = repair_empty_rows(levels, mean(q, k, block_m, block_n, backend))
    return attend(q, k, v, levels, block_m, block_n, block_n, backend, hidden=hidden)[0]


class PSAAttention(torch.nn.Module):
    """Drop-in attention module: ``out = PSAAttention(config)(q, k, v)``.

    Args:
        config: settings; None for the defaults.
        backend: as in :func:`pyramid_sparse_attention`.
    """

    def __init__(self, config: PSAConfig | None = None, backend: str = "auto") -> None:
        super().__init__()
        self.config = config if config is not None else PSAConfig()
        check_config(self.config)
        self.backend = backend

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        grid: Grid | None = None,
        text_length: int | None = None,
        sinks: SinkRanges = (),
        causal: bool = False,
    ) -> torch.Tensor:
        """``[B, H, Lq, D]`` from q of that shape and k, v ``[B, Hk, Lk, D]``; Lq and Lk may differ, and Hk divides H.

        ``grid``, ``sinks`` and ``causal`` as in :func:`pyramid_sparse_attention`; ``text_length`` defaults to the
        config's.
        """
        length = self.config.text_length if text_length is None else text_length
        return pyramid_sparse_attention(
            q, k, v, self.config, grid=grid, text_length=length, sinks=sinks, backend=self.backend, causal=causal
        )

    def extra_repr(self) -> str:
        return f"{self.config}, backend={self.backend!r}"


def _dense_info(q: torch.Tensor, k: torch.Tensor, config: PSAConfig, causal: bool) -> AttentionInfo:
    """What a call did that ran dense: every block at level 1, or every one that the causal mask leaves."""
    blocks = math.ceil(q.shape[2] / config.block_m), math.ceil(k.shape[2] / config.block_n)
    levels = torch.ones(*q.shape[:2], *blocks, dtype=torch.uint8, device=q.device)
    if causal:
        levels = causal_levels(levels, Causal(q.shape[2], k.shape[2], config.block_m, config.block_n))
    return AttentionInfo(levels, torch.ones(1, device=q.device), "torch")


def _check_calibration(
    calibration: Calibration, q: torch.Tensor, config: PSAConfig, grid: Grid | None, causal: bool
) -> None:
    check_calibration(calibration)
    if config.mask_mode != "calibrated":
        raise ConfigError("mask_mode", config.mask_mode, "must be calibrated for a call with a calibration")
    if len(calibration.recipes) != 1:
        layers = f"{len(calibration.recipes)} layers"
        raise ConfigError("calibration", layers, "must be that of one layer: give calibration.layer(number)")
    calibration.check_fits(config, q.shape[1])
    if causal:
        calibration.check_causal()
    orders = calibration.orders - {SEMANTIC}
    if orders and grid is None:
        raise ConfigError("grid", None, f"the calibration has heads in order {min(orders)}, which needs the grid")
