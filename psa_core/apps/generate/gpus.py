"""A run on several GPUs: a process for each, which torchrun starts, and diffusers' context parallelism between them.

All of them make every video together. The first process alone says and writes what comes of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from ...settings.errors import ConfigError

T = TypeVar("T")


def is_started() -> bool:
    """Whether this is one of the processes."""
    return dist.is_torchelastic_launched()


def check_count(gpus: int) -> None:
    """See that there are so many.

    Raises:
        ConfigError: there are not.
    """
    there = torch.cuda.device_count()
    if gpus > there:
        raise ConfigError("--gpus", gpus, f"torch sees {there or 'none'} here")


def start(gpus: int, arguments: Sequence[str]) -> int:
    """Run ``psa`` with these arguments in a process for each GPU; the exit code."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    command = [sys.executable, *torchrun, "-m", __package__.split(".")[0], *arguments]
    return subprocess.run(command, check=False).returncode


@contextmanager
def joined() -> Iterator[None]:
    """Inside, this process knows the others."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process says and writes what comes of a run; the only one of a run on one GPU does."""
    return not dist.is_initialized() or dist.get_rank() == 0


def of_first(value: T) -> T:
    """What the first process has; all of them have to call this."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]
