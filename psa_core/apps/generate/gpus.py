"""A run on several GPUs: a process for each, which torchrun starts, and diffusers' context parallelism between them.

All of them make every video together. The first process alone says and writes what comes of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TypeVar

import diffusers
import torch
import torch.distributed as dist

from ...settings.errors import ConfigError

T = TypeVar("T")


def is_started() -> bool:
    """Whether this is one of the processes."""
    return dist.is_torchelastic_launched()


def start(gpus: int, arguments: Sequence[str]) -> int:
    """Run ``psa`` with these arguments in a process for each GPU; the exit code.

    Raises:
        ConfigError: there are not so many.
    """
    there = torch.cuda.device_count()
    if gpus > there:
        raise ConfigError("--gpus", gpus, f"torch sees {there} here")
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


def share(pipeline: Any, gpus: int) -> None:
    """Share the heads of a pipeline's transformers among the processes.

    Raises:
        ConfigError: diffusers cannot do that, or they cannot be divided.
    """
    kind = getattr(diffusers, "ContextParallelConfig", None)
    for name in ("transformer", "transformer_2"):
        transformer = getattr(pipeline, name, None)
        if transformer is None:
            continue
        if kind is None or getattr(transformer, "_cp_plan", None) is None:
            what = f"diffusers {diffusers.__version__} cannot share a {type(transformer).__name__} among GPUs"
            raise ConfigError("--gpus", gpus, what)
        heads = transformer.config.num_attention_heads
        if heads % gpus:
            raise ConfigError("--gpus", gpus, f"must divide the {heads} heads of a {type(transformer).__name__}")
        # Also where they do not divide the tokens.
        uneven = {"ulysses_anything": True} if "ulysses_anything" in {field.name for field in fields(kind)} else {}
        transformer.enable_parallelism(config=kind(ulysses_degree=gpus, **uneven))
