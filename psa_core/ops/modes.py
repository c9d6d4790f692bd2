"""Modes of torch under which tensors are of another kind (fake, traced, functional, batched) or are recorded, or calls
go into a graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def tensors_differ() -> bool:
    """Whether tensors that are made now are of another kind than those made outside of all modes and transforms."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._functorch.peek_interpreter_stack() is not None


def is_traced() -> bool:
    """Whether the call at hand goes into a graph of ``torch.compile`` or ``torch.export``.

    ``torch.compiler.is_compiling`` says so to every thread while one of them compiles, in torch 2.13.
    """
    # Of an older torch, it says so of exports alone outside of what Dynamo traces.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return torch.compiler.is_dynamo_compiling() or exporting()


def wants_gradients(*tensors: torch.Tensor) -> bool:
    """Whether autograd records what is done with the tensors."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Outside of all modes and transforms."""
    if not tensors_differ():
        yield
        return
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
    from torch.utils._python_dispatch import _disable_current_modes

    with temporarily_clear_interpreter_stack(), _disable_current_modes():
        yield
