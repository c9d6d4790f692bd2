"""Several GPUs by diffusers' context parallelism.

By Ulysses each of them has the whole sequence of some heads, and attention is a call like any other: level maps and
recipes are those of its own heads. By a ring none has the whole sequence.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ...report.report import Report
from ..reasons import CONTEXT_PARALLELISM, GRADIENTS, HEADS_OF_ALL_GPUS, RING
from ..run import Run


def parallel_refusal(processor: Any, run: Run) -> str | None:
    """Why layers of a processor stay dense as it shares them with other GPUs; None where they can run sparse."""
    parallel = getattr(processor, "_parallel_config", None)
    if parallel is None:
        return None
    context = getattr(parallel, "context_parallel_config", None)
    if context is None:
        return CONTEXT_PARALLELISM
    if (context.ring_degree or 1) > 1:
        return RING
    if run.calibrations:
        return HEADS_OF_ALL_GPUS
    # Diffusers computes gradients from what it would have run.
    return GRADIENTS if torch.is_grad_enabled() else None


def shares_heads(transformer: torch.nn.Module) -> bool:
    """Whether other GPUs have some of a transformer's heads."""
    parallel = getattr(transformer, "_parallel_config", None)
    return getattr(parallel, "context_parallel_config", None) is not None


def merged(report: Report, transformer: torch.nn.Module) -> Report:
    """One report of all processes that share a transformer's heads, each of which has to call this.

    Args:
        report: of this process.
    """
    if not shares_heads(transformer) or not dist.is_initialized():
        return report
    reports: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(reports, report)
    return Report.of(reports)
