"""Triton launches on the current device, which need not be the one that holds the tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def on_device_of_first(launch: Callable[P, T]) -> Callable[P, T]:
    """Run a function that launches kernels with the device of its first argument as the current one."""

    @wraps(launch)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.cuda.device_of(args[0]):
            return launch(*args, **kwargs)

    return run
