"""The attention override that the patch installs, in eager forwards and in compiled ones.

One function for the whole process: it looks up the forward under way when it runs. The compile nodes drop their guards
on ``transformer_options``, and compiled code belongs to a model's class, not to a MODEL: a graph is run again at other
steps, with other settings, and where a node drops all guards for models that are not patched. So a graph holds one
operator in the place of each call, which decides as an eager call does, and runs the model's own attention where no
patched model is in a forward.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, Optional

import torch

from ...ops.modes import is_traced, wants_gradients
from ..operators import NAMESPACE, OPTIONS
from .forward import Override, forward_under_way

_IN_GRAPH = {"_inside_attn_wrapper", "transformer_options", "scale", "enable_gqa", "low_precision_attention"}
# An argument on the CPU keeps an operator out of CUDA graphs, which would replay one decision for good.
_ON_CPU = torch.zeros(1, device="cpu")


# ComfyUI looks for an attribute ``container_function`` on overrides; there must be none.
def attention_override(func: Override, *args: Any, **kwargs: Any) -> torch.Tensor:
    """``optimized_attention_override``: ``func`` is ComfyUI's attention, the others are its arguments."""
    if is_traced():
        return _into_the_graph(func, *args, **kwargs)
    forward = forward_under_way()
    return func(*args, **kwargs) if forward is None else forward.attend(func, args, kwargs)


def previous_override(found: Override | None) -> Override | None:
    """The override that would have run without the pack, where ``found`` is on the hook.

    A forward that is run within another finds the pack's own, and has the outer one's before it: with itself it would
    go round in circles.
    """
    if found is not attention_override:
        return found
    outer = forward_under_way()
    return None if outer is None else outer.previous


_outside_the_graph = torch.compiler.disable(attention_override)


def _into_the_graph(
    func: Override,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
    attn_precision: Any = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """Put a call into the graph that is being made."""
    module, name = func.__module__, func.__name__
    recorded = wants_gradients(q, k, v)
    if recorded or attn_precision is not None or not _IN_GRAPH.issuperset(kwargs) or not _is_found(module, name):
        # A break in the graph: an operator has no gradients, takes no such arguments, or would not find the function.
        kwargs |= {"attn_precision": attn_precision, "skip_output_reshape": skip_output_reshape}
        return _outside_the_graph(func, q, k, v, heads, mask=mask, skip_reshape=skip_reshape, **kwargs)
    full_precision = kwargs.get("low_precision_attention") is False
    grouped = bool(kwargs.get("enable_gqa"))
    return _attend(
        *(q, k, v, mask, heads, skip_reshape, skip_output_reshape, kwargs.get("scale"), grouped, full_precision),
        *(module, name, _ON_CPU),
    )


@torch.library.custom_op(f"{NAMESPACE}::comfyui_attend", mutates_args=(), **OPTIONS)
def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Optional[torch.Tensor],  # noqa: UP045
    heads: int,
    skip_reshape: bool,
    skip_output_reshape: bool,
    scale: Optional[float],  # noqa: UP045
    grouped: bool,
    full_precision: bool,
    module: str,
    name: str,
    on_cpu: torch.Tensor,
) -> torch.Tensor:
    """A call out of a graph; what it leaves out are ComfyUI's defaults."""
    given: dict[str, Any] = {"_inside_attn_wrapper": True}
    forward = forward_under_way()
    if forward is not None:
        given["transformer_options"] = forward.options
    if scale is not None:
        given["scale"] = scale
    if grouped:
        given["enable_gqa"] = True
    if full_precision:
        given["low_precision_attention"] = False
    given |= {"skip_reshape": skip_reshape, "skip_output_reshape": skip_output_reshape}
    return attention_override(_function(module, name), q, k, v, heads, mask=mask, **given).contiguous()


@_attend.register_fake
def _shape(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    heads: int,
    skip_reshape: bool,
    skip_output_reshape: bool,
    *_: Any,
) -> torch.Tensor:
    shape = list(q.shape)
    if skip_reshape and not skip_output_reshape:
        shape = [shape[0], shape[2], heads * shape[3]]
    elif skip_output_reshape and not skip_reshape:
        shape = [shape[0], heads, shape[1], shape[2] // heads]
    return q.new_empty(shape)


# In a compiled graph the answer is a constant.
@torch.compiler.assume_constant_result
def _is_found(module: str, name: str) -> bool:
    try:
        _function(module, name)
    except (ImportError, AttributeError):
        return False
    return True


@functools.lru_cache(maxsize=32)
def _function(module: str, name: str) -> Override:
    function: Override = getattr(importlib.import_module(module), name)
    return function
