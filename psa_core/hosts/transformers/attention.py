"""Runs a call of a layer's attention: sparse where it can be, else as the model would have run it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from ..reasons import DECODING, TRANSFORMERS, first_reason
from .layer_call import LayerCall
from .masks import FEWEST_QUERIES, Deferred, Rows
from .prompt import Prompt

# ``[B, Lq, H, D]``, and weights where the model's own attention gives any.
Attended = tuple[torch.Tensor, Any]


def attend(prompt: Prompt, layer: int, call: LayerCall) -> Attended:
    """Run a call, and count it.

    Args:
        layer: which it is of the model's.
    """
    q, k = call.q, call.k
    prompt.enter(layer, call.past)
    if _is_decoding(q.shape[2], k.shape[2]):
        return _dense(prompt, layer, DECODING, call)
    reason = first_reason(TRANSFORMERS, call.request())
    if reason is not None:
        return _dense(prompt, layer, reason, call)
    groups = call.groups
    reasons = [_reason(prompt, layer, call, rows) for rows in groups]
    if None not in reasons:
        (most, _), *_others = Counter(filter(None, reasons)).most_common()
        return _dense(prompt, layer, most, call)
    if reasons == [None] and groups[0].queries == slice(0, q.shape[2]):
        return _sparse(prompt, layer, call.of(groups[0]), groups[0]).contiguous(), None
    # What stands at padding is seen by nobody, and must be no NaN.
    out = q.new_zeros(q.shape[0], q.shape[2], q.shape[1], q.shape[3])
    for rows, why in zip(groups, reasons, strict=True):
        if rows.queries.start < rows.queries.stop:
            own = call.of(rows)
            done = _sparse(prompt, layer, own, rows) if why is None else _dense(prompt, layer, why, own)[0]
            out[rows.entries, rows.queries] = done
    return out, None


def _sparse(prompt: Prompt, layer: int, call: LayerCall, rows: Rows) -> torch.Tensor:
    """Run a call of some rows sparse."""
    place = prompt.place(layer, (rows.keys.start, rows.keys.stop))
    return prompt.run.attend(call.q, call.k, call.v, place).transpose(1, 2)


def _dense(prompt: Prompt, layer: int, reason: str, call: LayerCall) -> Attended:
    prompt.stay_dense(reason, layer)
    return dense_attention(prompt.base, call)


def dense_attention(base: str, call: LayerCall) -> Attended:
    """What a model whose attention implementation is ``base`` runs."""
    module, q, k, v, mask, arguments = call
    if isinstance(mask, Deferred):
        mask = mask.dense
        if mask is None and "is_causal" in arguments:
            # Some models say so only where they have no mask, and they had this one.
            arguments = arguments | {"is_causal": True}
    function = _function(base, module)
    if "flash" not in base:
        return function(module, q, k, v, mask, **arguments)
    # FlashAttention's function reads off the settings which of its versions it is.
    config: Any = module.config
    before, config._attn_implementation_internal = config._attn_implementation_internal, base
    try:
        return function(module, q, k, v, mask, **arguments)
    finally:
        config._attn_implementation_internal = before


def _function(base: str, module: torch.nn.Module) -> Callable[..., Attended]:
    """The attention function of a name, as the file that a layer is defined in has it."""
    name = "eager_attention_forward" if base == "eager" else "ALL_ATTENTION_FUNCTIONS"
    files = [vars(sys.modules[kind.__module__]) for kind in type(module).__mro__ if kind.__module__ in sys.modules]
    found = next(file[name] for file in files if name in file)
    return found if base == "eager" else found[base]


def _reason(prompt: Prompt, layer: int, call: LayerCall, rows: Rows) -> str | None:
    """Why rows of a call stay dense."""
    if _is_decoding(rows.queries.stop - rows.queries.start, rows.keys.stop - rows.keys.start):
        return DECODING
    place = prompt.place(layer, None)
    return prompt.run.dense_reason(call.q[:1, :, rows.queries], call.k[:1, :, rows.keys], place)


def _is_decoding(queries: int, keys: int) -> bool:
    """Whether tokens are too few for a chunk of a prompt; a prompt of its own may be as short."""
    return queries < min(FEWEST_QUERIES, keys)
