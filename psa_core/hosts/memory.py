"""Memory that a device has left."""

from __future__ import annotations

import math

import torch


def memory_left(device: torch.device) -> float:
    """Bytes that could be allocated, as the driver and torch count them; infinite where nobody does. Never waits."""
    if device.type != "cuda":
        return math.inf
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
