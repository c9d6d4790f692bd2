"""The attention call as one operator, which ``torch.compile`` keeps whole, ``fullgraph=True`` included."""

from __future__ import annotations

import math
from ast import literal_eval
from collections.abc import Sequence
from functools import lru_cache
from operator import index

import torch

from ..ops.backends import BackendError, choose_backend_for
from ..ops.modes import wants_gradients
from ..ops.precision import PRECISIONS, precision_that_runs
from ..settings.calibration import Calibration
from ..settings.config import PSAConfig
from ..settings.errors import ConfigError
from ..settings.sinks import Sink, Sinks
from ..settings.sizes import Grid
from .namespace import operator_namespace
from .plan import coarsest_level

_NAME = f"{operator_namespace(__package__)}::sparse_attention"
# Spelled out, because not every torch reads all types of Python.
_SCHEMA = (
    "(Tensor q, Tensor k, Tensor v, str config, SymInt[]? grid, SymInt[] sinks, Tensor? static_levels, str backend,"
    " str? calibration=None, bool causal=False) -> (Tensor, Tensor, Tensor)"
)


def _attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: str,
    grid: Sequence[int] | None,
    sinks: Sequence[int],
    static_levels: torch.Tensor | None,
    backend: str,
    calibration: str | None = None,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, level map and shares of levels of :func:`psa_core.pyramid_sparse_attention`.

    Args:
        config, calibration: ``PSAConfig.as_text``, ``Calibration.as_text``.
        sinks: start, stop and dense_rows of one after another; the others as there, checked already.
    """
    from .calibrate import given_choice
    from .steps import sparse_attention

    size = None if grid is None else (grid[0], grid[1], grid[2])
    ranges = tuple(Sink(sinks[i], sinks[i + 1], bool(sinks[i + 2])) for i in range(0, len(sinks), 3))
    settings = _config(config)
    choice = None if calibration is None else given_choice(_calibration(calibration), q, settings)
    attended = sparse_attention(q, k, v, settings, size, ranges, static_levels, backend, choice, causal=causal)
    info = attended.info()
    levels, shares = info.levels, info.level_shares
    if settings.radial is not None:
        # A mask's map is one for all heads and outlives the call; a graph gets one of its own.
        levels, shares = levels.clone(memory_format=torch.contiguous_format), shares.clone()
    return attended.out, levels, shares


# Triton's kernels and the choices made before them are no business of the compiler's.
attention_operator = torch.library.custom_op(_NAME, _attention, mutates_args=(), schema=_SCHEMA)
_outside_the_graph = torch.compiler.disable(_attention)


# In a compiled graph the answer is a constant.
@torch.compiler.assume_constant_result
def _choose_backend(backend: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    try:
        return choose_backend_for(backend, device, dtype, head_dim)
    except (ConfigError, BackendError):
        # The call itself says it better than a compiler.
        return backend


@torch.compiler.assume_constant_result
def _choose_precision(wanted: str, backend: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    return precision_that_runs(wanted, device, dtype, head_dim) if backend == "triton" else PRECISIONS[0]


def compiled_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: PSAConfig,
    grid: Grid | None,
    sinks: Sinks,
    static_levels: torch.Tensor | None,
    backend: str,
    calibration: Calibration | None,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, str, str]:
    """Output, level map, shares of levels, backend and precision of one call, for a graph that is being compiled."""
    recipes = None if calibration is None else calibration.as_text
    flat = [number for start, stop, dense in sinks for number in (start, stop, 1 if dense else 0)]
    rest = grid, flat, static_levels, backend, recipes, causal
    if wants_gradients(q, k, v):
        # An operator has none; plain torch has, and they are worth a break in the graph. Torch 2.5 does not go on
        # behind one in the middle of a tuple.
        out, levels, shares = _outside_the_graph(q, k, v, config.as_text, *rest)
        return out, levels, shares, "torch", PRECISIONS[0]
    # A head size that the graph leaves open is settled here.
    facts = q.device, q.dtype, index(q.shape[-1])
    chosen = _choose_backend(backend, *facts)
    precision = _choose_precision(config.precision, chosen, *facts)
    q, k, v = (x.detach() for x in (q, k, v))
    return *attention_operator(q, k, v, config.as_text, *rest), chosen, precision


@attention_operator.register_fake
def _shapes(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: str,
    grid: Sequence[int] | None,
    sinks: Sequence[int],
    static_levels: torch.Tensor | None,
    backend: str,
    calibration: str | None = None,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, heads, tokens, d = q.shape
    settings = _config(config)
    blocks = math.ceil(tokens / settings.block_m), math.ceil(k.shape[2] / settings.block_n)
    out = q.new_empty((batch, tokens, heads, d)).transpose(1, 2)
    levels = q.new_empty((batch, heads, *blocks), dtype=torch.uint8)
    max_level = coarsest_level(settings, any_level=static_levels is not None)
    return out, levels, q.new_empty(max_level.bit_length(), dtype=torch.float32)


@lru_cache(maxsize=64)
def _config(text: str) -> PSAConfig:
    return PSAConfig(**literal_eval(text))


@lru_cache(maxsize=256)
def _calibration(text: str) -> Calibration:
    return Calibration.from_text(text)
