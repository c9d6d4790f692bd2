"""One call of a layer's attention, in the form that transformers has for it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from ...ops.modes import wants_gradients
from ..reasons import DECODING, TRANSFORMERS, Request, first_reason
from .masks import FEWEST_QUERIES, Deferred, Rows
from .prompt import Prompt

# What a model may ask of attention beside the usual, by the name of the argument.
_OTHER = {
    "sliding_window": "sliding window",
    "softcap": "soft cap of the logits",
    "s_aux": "sinks that the model has learned",
    "position_bias": "position bias",
    "cu_seq_lens_q": "several sequences in one row",
    "cache": "paged cache",
    "output_attentions": "attention weights asked for",
}


def attend(
    prompt: Prompt,
    layer: int,
    module: torch.nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Any,
    arguments: dict[str, Any],
) -> tuple[torch.Tensor, Any]:
    """Run a call sparse where it can be, else as the model would have run it.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``, with what the cache holds.
        mask: that transformers has made.
        arguments: the others of transformers' attention functions, by name.

    Returns:
        ``[B, Lq, H, D]``, and weights where the model's own attention gives any.
    """

    def dense() -> tuple[torch.Tensor, Any]:
        return dense_attention(prompt.base, module, q, k, v, mask, arguments)

    deferred = isinstance(mask, Deferred)
    prompt.enter(layer, mask.past if deferred else k.shape[2] - q.shape[2])
    if _is_decoding(q.shape[2], k.shape[2]):
        prompt.stay_dense(DECODING, layer)
        return dense()
    reason = first_reason(TRANSFORMERS, _request(module, q, k, v, mask, arguments))
    if reason is not None:
        prompt.stay_dense(reason, layer)
        return dense()
    groups = mask.rows if deferred else [Rows(list(range(len(q))), slice(0, q.shape[2]), slice(0, k.shape[2]))]
    reasons = [_reason(prompt, layer, q, k, rows) for rows in groups]
    if None not in reasons:
        prompt.stay_dense(Counter(filter(None, reasons)).most_common(1)[0][0], layer)
        return dense()
    if reasons == [None] and groups[0].queries == slice(0, q.shape[2]):
        return _attend_rows(prompt, layer, None, module, q, k, v, mask, arguments, groups[0]).contiguous(), None
    # What stands at padding is seen by nobody, and must be no NaN.
    out = q.new_zeros(q.shape[0], q.shape[2], q.shape[1], v.shape[3])
    for rows, why in zip(groups, reasons, strict=True):
        if rows.queries.start < rows.queries.stop:
            part = _attend_rows(prompt, layer, why, module, q, k, v, mask, arguments, rows)
            out[rows.entries, rows.queries] = part
    return out, None


def _attend_rows(
    prompt: Prompt,
    layer: int,
    reason: str | None,
    module: torch.nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Any,
    arguments: dict[str, Any],
    rows: Rows,
) -> torch.Tensor:
    """Run some rows of a call: dense for a reason, else sparse. Arguments and result as of :func:`attend`."""
    own = _of(q, rows.entries, rows.queries), _of(k, rows.entries, rows.keys), _of(v, rows.entries, rows.keys)
    if reason is None:
        place = prompt.place(layer, (rows.keys.start, rows.keys.stop))
        return prompt.run.attend(*own, place).transpose(1, 2)
    prompt.stay_dense(reason, layer)
    # Positions are for what finds several sequences in a row; here is one.
    alone = arguments | {"position_ids": None}
    return dense_attention(prompt.base, module, *own, mask.of(rows), alone)[0]


def dense_attention(
    base: str,
    module: torch.nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Any,
    arguments: dict[str, Any],
) -> tuple[torch.Tensor, Any]:
    """What a model whose attention implementation is ``base`` runs; arguments and result as of :func:`attend`."""
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


def _function(base: str, module: torch.nn.Module) -> Callable[..., tuple[torch.Tensor, Any]]:
    """The attention function of a name, as the file that a layer is defined in has it."""
    name = "eager_attention_forward" if base == "eager" else "ALL_ATTENTION_FUNCTIONS"
    files = [vars(sys.modules[kind.__module__]) for kind in type(module).__mro__ if kind.__module__ in sys.modules]
    found = next(file[name] for file in files if name in file)
    return found if base == "eager" else found[base]


def _reason(prompt: Prompt, layer: int, q: torch.Tensor, k: torch.Tensor, rows: Rows) -> str | None:
    """Why rows of a call stay dense."""
    if _is_decoding(rows.queries.stop - rows.queries.start, rows.keys.stop - rows.keys.start):
        return DECODING
    place = prompt.place(layer, None)
    return prompt.run.dense_reason(q[:1, :, rows.queries], k[:1, :, rows.keys], place)


def _is_decoding(queries: int, keys: int) -> bool:
    """Whether tokens are too few for a chunk of a prompt; a prompt of its own may be as short."""
    return queries < min(FEWEST_QUERIES, keys)


def _of(x: torch.Tensor, entries: list[int], tokens: slice) -> torch.Tensor:
    x = x[:, :, tokens]
    return x if len(entries) == len(x) else x[entries]


def _request(
    module: torch.nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, arguments: dict[str, Any]
) -> Request:
    """What a call asks for."""
    return Request(
        q.shape[2],
        k.shape[2],
        q.shape[3],
        mask=None if isinstance(mask, Deferred) else mask,
        dropout=bool(arguments.get("dropout")),
        odd_values=v.shape[3] != k.shape[3],
        scale=arguments.get("scaling"),
        gradients=wants_gradients(q, k, v),
        training=module.training,
        dtypes=(q.dtype, k.dtype, v.dtype),
        other=_other(module, q, k, mask, arguments),
    )


def _other(module: torch.nn.Module, q: torch.Tensor, k: torch.Tensor, mask: Any, arguments: dict[str, Any]) -> str:
    """What a call is, where that is not plain causal attention."""
    for name, what in _OTHER.items():
        # Not by comparison: some are tensors.
        if arguments.get(name) is not None and arguments[name] is not False:
            return what
    deferred = isinstance(mask, Deferred)
    said = arguments.get("is_causal")
    causal = getattr(module, "is_causal", True) if said is None else said
    # A mask says what a query sees, but to FlashAttention.
    if not causal and (not deferred or "flash" in mask.base):
        return "attention that is not causal"
    if deferred and not mask.plain:
        return "a mask of the model's own"
    if deferred and mask.rows is None:
        return "padding within prompts"
    if mask is None and q.shape[2] != k.shape[2]:
        return "a cache without a mask"
    return ""
