"""One call of a layer's attention, in the form that transformers has for it, and what it asks for."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ...ops.modes import wants_gradients
from ..reasons import Request
from .masks import Deferred, Rows

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


class LayerCall(NamedTuple):
    """What transformers hands to an attention function.

    Attributes:
        module: the layer.
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``, with what the cache holds.
        mask: that transformers has made.
        arguments: the others, by name.
    """

    module: torch.nn.Module
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    mask: Any
    arguments: dict[str, Any]

    @property
    def past(self) -> int:
        """Tokens in front of the queries."""
        return self.mask.past if isinstance(self.mask, Deferred) else self.k.shape[2] - self.q.shape[2]

    @property
    def groups(self) -> list[Rows]:
        """Its rows without padding, of a call that asks for nothing but causal attention."""
        if isinstance(self.mask, Deferred):
            assert self.mask.rows is not None
            return self.mask.rows
        queries, keys = slice(0, self.q.shape[2]), slice(0, self.k.shape[2])
        return [Rows(list(range(self.q.shape[0])), queries, keys)]

    def of(self, rows: Rows) -> LayerCall:
        """The call of some rows alone."""
        q = _part(self.q, rows.entries, rows.queries)
        k, v = (_part(x, rows.entries, rows.keys) for x in (self.k, self.v))
        mask = self.mask.of(rows) if isinstance(self.mask, Deferred) else self.mask
        # Positions are for what finds several sequences in a row; here is one.
        return LayerCall(self.module, q, k, v, mask, self.arguments | {"position_ids": None})

    def request(self) -> Request:
        """What it asks for."""
        q, k, v = self.q, self.k, self.v
        return Request(
            q.shape[2],
            k.shape[2],
            q.shape[3],
            mask=None if isinstance(self.mask, Deferred) else self.mask,
            dropout=bool(self.arguments.get("dropout")),
            odd_values=v.shape[3] != k.shape[3],
            scale=self.arguments.get("scaling"),
            gradients=wants_gradients(q, k, v),
            training=self.module.training,
            dtypes=(q.dtype, k.dtype, v.dtype),
            other=self._other(),
        )

    def _other(self) -> str:
        """What it is, where that is not plain causal attention."""
        for name, what in _OTHER.items():
            # Not by comparison: some are tensors.
            if self.arguments.get(name) is not None and self.arguments[name] is not False:
                return what
        deferred = isinstance(self.mask, Deferred)
        said = self.arguments.get("is_causal")
        causal = getattr(self.module, "is_causal", True) if said is None else said
        # A mask says what a query sees, but to FlashAttention.
        if not causal and (not deferred or "flash" in self.mask.base):
            return "attention that is not causal"
        if deferred and not self.mask.plain:
            return "a mask of the model's own"
        if deferred and self.mask.rows is None:
            return "padding within prompts"
        if self.mask is None and self.q.shape[2] != self.k.shape[2]:
            return "a cache without a mask"
        return ""


def _part(x: torch.Tensor, entries: list[int], tokens: slice) -> torch.Tensor:
    x = x[:, :, tokens]
    return x if len(entries) == len(x) else x[entries]
