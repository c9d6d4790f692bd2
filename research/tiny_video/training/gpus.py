"""Training on one GPU, or on several with ``torchrun``: each takes its part of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import distributed
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def join() -> None:
    """Take this process's GPU, and meet the other processes if there are any."""
    if device().type == "cuda":
        torch.cuda.set_device(device())
        torch.backends.cudnn.benchmark = True
    if count() > 1:
        distributed.init_process_group("nccl")


def device() -> torch.device:
    """This process's GPU; the CPU, which is far too slow for more than a test, where there is none."""
    return torch.device("cuda", rank()) if torch.cuda.is_available() else torch.device("cpu")


def half_precision() -> torch.autocast:
    """Matrix products in bfloat16, on a GPU."""
    return torch.autocast(device().type, torch.bfloat16, enabled=device().type == "cuda")


def rank() -> int:
    """Number of this process's GPU; the first is 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


def count() -> int:
    """How many GPUs take part."""
    return int(os.environ.get("WORLD_SIZE", 1))


def share(batch: int) -> int:
    """This GPU's part of a batch."""
    return max(1, batch // count())


def generator(seed: int) -> torch.Generator:
    """Random numbers on this GPU, unlike those on the others."""
    return torch.Generator(device()).manual_seed(seed * 1000 + rank())


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Give every GPU the mean of all GPUs' gradients."""
    if count() == 1:
        return
    gradients = [x.grad for x in parameters if x.grad is not None]
    mean = parameters_to_vector(gradients)
    distributed.all_reduce(mean, distributed.ReduceOp.AVG)
    vector_to_parameters(mean, gradients)


def wait() -> None:
    """Wait for the others."""
    if count() > 1:
        distributed.barrier()
