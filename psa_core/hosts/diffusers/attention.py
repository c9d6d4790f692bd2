"""One self-attention layer: a hook that goes around it and catches the attention call inside."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks import ModelHook
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from .denoising import Denoising

Attention = Callable[..., torch.Tensor]


class SelfAttentionHook(ModelHook):
    """Sends the attention of one layer through PSA, or lets it be.

    Args:
        denoising: the run that the layer takes part in.
        layer: transformer block.
    """

    def __init__(self, denoising: Denoising, layer: int) -> None:
        super().__init__()
        self._denoising, self._layer = denoising, layer

    # What happens here depends on the step and is counted; a compiled graph can do neither.
    @torch.compiler.disable
    def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        """The layer's forward pass; diffusers calls it in place of the original."""
        forward: Any = self.fn_ref.original_forward
        if getattr(module.processor, "_parallel_config", None) is not None:
            self._denoising.stay_dense("context parallelism")
            return forward(*args, **kwargs)
        with _torch_backend(module.processor) as dense, _Catch(self._attend, dense) as catch:
            out = forward(*args, **kwargs)
        if not catch.caught:
            # A cache answered for the layer, or its processor has an attention of its own.
            self._denoising.stay_dense("no call of torch's attention in the layer")
        return out

    def _attend(self, dense: Attention, call: dict[str, Any]) -> torch.Tensor:
        """Run a caught call, given by name as torch takes it; ``dense`` is what the model would have called."""
        q, k, v = call["query"], call["key"], call["value"]
        place = self._denoising.place(self._layer)
        reason = _unlike_psa(call) or self._denoising.run.dense_reason(q, k, place)
        if reason is not None:
            self._denoising.stay_dense(reason)
            return dense(**call)
        return self._denoising.run.attend(q, k, v, place)


class _Catch(TorchFunctionMode):
    """While it is active, this thread's calls of ``scaled_dot_product_attention`` go to ``attend(dense, call)``."""

    def __init__(self, attend: Callable[[Attention, dict[str, Any]], torch.Tensor], dense: Attention) -> None:
        super().__init__()
        self.caught = False
        self._attend, self._dense = attend, dense

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.caught = True
        return self._attend(self._dense, _SIGNATURE.bind(*args, **(kwargs or {})).arguments)


def _signature(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False):
    """Torch's attention has no signature that can be asked for."""


_SIGNATURE = inspect.signature(_signature)


@contextmanager
def _torch_backend(processor: Any) -> Iterator[Attention]:
    """Make a processor call torch's attention for a while, where it can be caught, whatever backend it is set to.

    Yields:
        The attention that it is set to, with torch's arguments and shapes ``[B, H, L, D]``.
    """
    # Processors that know no backends call torch's attention as it is.
    if not hasattr(processor, "_attention_backend"):
        yield scaled_dot_product_attention
        return
    chosen = processor._attention_backend

    def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        # diffusers has tokens before heads.
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        return dispatch_attention_fn(q, k, v, **options, backend=chosen).transpose(1, 2)

    processor._attention_backend = AttentionBackendName.NATIVE
    try:
        yield dense
    finally:
        processor._attention_backend = chosen


def _unlike_psa(call: dict[str, Any]) -> str | None:
    """Why a call of torch's attention asks for something else than PSA computes; None when it does not."""
    q = call["query"]
    if call.get("attn_mask") is not None:
        return "attention mask"
    if call.get("dropout_p") or call.get("is_causal") or call.get("enable_gqa"):
        return "causal attention, dropout or grouped heads"
    if call.get("scale") not in (None, q.shape[-1] ** -0.5):
        return "attention scale"
    if torch.is_grad_enabled() and q.requires_grad:
        return "gradients are on (torch.no_grad turns them off)"
    return None
