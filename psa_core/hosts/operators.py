"""What the hosts' operators have in common: graphs that ``torch.compile`` makes keep them whole and run them anew."""

from __future__ import annotations

from typing import Any

import torch

from ..attention.namespace import operator_namespace

NAMESPACE = operator_namespace(__package__)
# CUDA graphs would replay kernels and leave the choice out. Torch before 2.9 has no such tag, but keeps graphs with
# tensors on the CPU, and every operator of a host takes one, out of them as well.
OPTIONS: dict[str, Any] = {"tags": (torch.Tag.cudagraph_unsafe,)} if hasattr(torch.Tag, "cudagraph_unsafe") else {}
