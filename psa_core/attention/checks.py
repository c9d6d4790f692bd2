"""Whether a call's tensors and settings go together, said before anything runs."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..settings.config import PSAConfig
from ..settings.errors import ConfigError
from ..settings.orders import ORDERS_BY_CONTENT, SEMANTIC
from ..settings.sinks import Sinks, read_sinks, sink_tokens, video_start
from ..settings.sizes import Grid
from ..settings.validation import check_kind


def check_call(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: PSAConfig,
    grid: Grid | None,
    text_length: int,
    sinks: Any,
    static: torch.Tensor | None,
    causal: bool = False,
) -> Sinks:
    """See that a sparse call can follow its settings; arguments as in :func:`psa_core.pyramid_sparse_attention`.

    Returns:
        All its sinks, the text among them.

    Raises:
        ConfigError: it cannot; the message names which.
    """
    check_tensors(q, k, v, causal)
    if causal:
        _check_past_first(config, grid)
    found = _check_sequence(q, k, grid, text_length, sinks, causal)
    _check_masks(config, q, k, grid, static)
    return found


def check_tensors(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False) -> None:
    """See that queries, keys and values go together.

    Raises:
        ConfigError: they do not; the message names which.
    """
    for key, x in (("q", q), ("k", k), ("v", v)):
        check_kind(key, x, torch.Tensor, "floating point [B, H, L, D]")
        if x.ndim != 4 or 0 in x.shape or not x.is_floating_point():
            raise ConfigError(key, f"{x.dtype} {list(x.shape)}", "must be floating point [B, H, L, D] with no size 0")
    shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
    if k.shape != v.shape or (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3]):
        raise ConfigError("q, k, v", shapes, "must agree in batch and head size, and k and v in heads and length too")
    if q.shape[1] % k.shape[1]:
        raise ConfigError("q, k, v", shapes, "must have as many heads, or q a multiple of those of k and v")
    if causal and q.shape[2] > k.shape[2]:
        raise ConfigError("causal", shapes, "needs as many keys as queries, or more: the last of both stand together")
    if len({(x.dtype, x.device) for x in (q, k, v)}) > 1:
        kinds = ", ".join(f"{x.dtype} on {x.device}" for x in (q, k, v))
        raise ConfigError("q, k, v", kinds, "must share one dtype and device")


def _check_past_first(config: PSAConfig, grid: Grid | None) -> None:
    """See that no token of a causal call is to be put in front of its past."""
    if config.radial is not None:
        raise ConfigError("radial", "a mask", "is for videos that are made: causal attention has no grid of tokens")
    if grid is not None:
        raise ConfigError("grid", grid, "must not be given for causal attention, which takes tokens as they lie")
    if config.order == SEMANTIC and config.mask_mode != "calibrated":
        allowed = "puts tokens in front of their past: causal attention needs use_rearrange False"
        raise ConfigError("rearrange_method", config.rearrange_method, allowed)


def _check_sequence(
    q: torch.Tensor, k: torch.Tensor, grid: Grid | None, text_length: int, sinks: Any, causal: bool
) -> Sinks:
    # Positions are those of keys, among which the queries of a causal call are the last.
    longest = k.shape[2] if causal else min(q.shape[2], k.shape[2])
    if not isinstance(text_length, int) or not 0 <= text_length <= longest:
        raise ConfigError("text_length", text_length, f"must be a whole number between 0 and {longest}")
    found = read_sinks(sinks, text_length)
    if found and found[-1].stop > longest:
        raise ConfigError("sinks", tuple(found[-1]), f"must end at {longest} tokens or before")
    if grid is None:
        return found
    if q.shape[2] != k.shape[2]:
        raise ConfigError("grid", grid, f"needs as many queries as keys, not {q.shape[2]} and {k.shape[2]}")
    if not isinstance(grid, (tuple, list)) or len(grid) != 3 or not all(isinstance(n, int) and n > 0 for n in grid):
        raise ConfigError("grid", grid, "must be three whole numbers, 1 or more: frames, height, width")
    beside = sink_tokens(found)
    if math.prod(grid) + beside != q.shape[2]:
        what = f"{text_length} text tokens" if beside == text_length else f"{beside} tokens of sinks"
        raise ConfigError("grid", tuple(grid), f"frames x height x width and {what} must make {q.shape[2]} tokens")
    start = video_start(found)
    within = [sink for sink in found if start <= sink.start < start + math.prod(grid)]
    if within:
        raise ConfigError("sinks", tuple(within[0]), "lies within the video, whose tokens are put in another order")
    return found


def _check_masks(
    config: PSAConfig, q: torch.Tensor, k: torch.Tensor, grid: Grid | None, static: torch.Tensor | None
) -> None:
    """See that a call can follow its mask mode, its radial mask and its static map.

    Raises:
        ConfigError: they cannot; the message names which.
    """
    if config.mask_mode == "timestep":
        raise ConfigError(
            "mask_mode", config.mask_mode, "needs the denoising step, which hosts know; config_at makes one of it"
        )
    if config.radial is not None and grid is None:
        raise ConfigError("grid", None, "a radial mask needs (frames, height, width) of the video in tokens")
    if static is None:
        return
    if config.radial is not None:
        raise ConfigError("static_levels", list(static.shape), "must not be given beside the config's radial mask")
    if config.mask_mode != "calibrated" and config.order in ORDERS_BY_CONTENT:
        allowed = "has other blocks in each head, which static_levels cannot fit: take another, or use_rearrange False"
        raise ConfigError("rearrange_method", config.rearrange_method, allowed)
    blocks = math.ceil(q.shape[2] / config.block_m), math.ceil(k.shape[2] / config.block_n)
    check_levels(static, (*q.shape[:2], *blocks), q.device, "static_levels")


def check_levels(levels: torch.Tensor, shape: tuple[int, ...], device: torch.device, key: str) -> None:
    """See that a level map serves a call.

    Args:
        shape: ``[B, H, q_blocks, k_blocks]`` of the call.
        device: of its tensors.

    Raises:
        ConfigError: it does not.
    """
    check_kind(key, levels, torch.Tensor, f"uint8 {list(shape)} (or 1 for B, H)")
    fits = levels.ndim == 4 and all(n in (1, m) for n, m in zip(levels.shape[:2], shape[:2], strict=True))
    if levels.dtype != torch.uint8 or not fits or tuple(levels.shape[2:]) != tuple(shape[2:]):
        raise ConfigError(key, f"{levels.dtype} {list(levels.shape)}", f"must be uint8 {list(shape)} (or 1 for B, H)")
    if levels.device != device:
        raise ConfigError(key, str(levels.device), f"must be on {device}, as q is")
