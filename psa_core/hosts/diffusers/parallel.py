"""Several GPUs by diffusers' context parallelism.

By Ulysses each of them has the whole sequence of some heads, and attention is a call like any other: level maps and
recipes are those of its own heads, also of a calibration that has them all. By a ring none has the whole sequence.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ...report.calibrated import Calibrated
from ...report.report import Report
from ..reasons import CONTEXT_PARALLELISM, GRADIENTS, RING
from .families import heads_of


def parallel_refusal(processor: Any) -> str | None:
    """Why layers of a processor stay dense as it shares them with other GPUs; None where they can run sparse."""
    parallel = getattr(processor, "_parallel_config", None)
    if parallel is None:
        return None
    context = getattr(parallel, "context_parallel_config", None)
    if context is None:
        return CONTEXT_PARALLELISM
    if (context.ring_degree or 1) > 1:
        return RING
    # Diffusers computes gradients from what it would have run.
    return GRADIENTS if torch.is_grad_enabled() else None


def first_head(module: Any) -> int | None:
    """Which of an attention module's heads is the first of this GPU's; None where it has all of them."""
    context = getattr(getattr(module.processor, "_parallel_config", None), "context_parallel_config", None)
    if context is None:
        return None
    # Where GPUs do not divide the heads, the last has fewer.
    return int(context._ulysses_mesh.get_local_rank()) * -(-heads_of(module) // context.ulysses_degree)


def shares_heads(transformer: torch.nn.Module) -> bool:
    """Whether other GPUs have some of a transformer's heads."""
    parallel = getattr(transformer, "_parallel_config", None)
    return getattr(parallel, "context_parallel_config", None) is not None


def merged(report: Report, transformer: torch.nn.Module) -> Report:
    """One report of all processes that share a transformer's heads, each of which has to call this. Its recipes are
    those of all heads.

    Args:
        report: of this process.
    """
    if not shares_heads(transformer) or not dist.is_initialized():
        return report
    context: Any = transformer._parallel_config
    group = context.context_parallel_config._flattened_mesh.get_group()
    reports: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(reports, report, group)
    whole = Report.of(reports)
    whole.calibrated = Calibrated.of_heads([each.calibrated for each in reports])
    return whole
