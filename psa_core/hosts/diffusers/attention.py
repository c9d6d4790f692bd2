"""One self-attention layer: a hook that goes around it and catches the attention call inside."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from ...ops.modes import is_traced, wants_gradients
from ..reasons import (
    DIFFUSERS,
    MASKED,
    NO_TORCH_ATTENTION,
    OWN_SPARSE_ATTENTION,
    Request,
    first_reason,
)
from .denoising import Denoising
from .operators import attend, number_of, stay_dense
from .parallel import first_head, parallel_refusal

# Backends by name, and two that have none: torch's attention, called as it is, and what is active when it is called.
_TORCH, _ACTIVE = None, ""

_LAYER = "_psa_layer"


class Layer:
    """Goes around every call of one self-attention module; sends the attention inside through PSA, or lets it be.

    The module gets a class of its own for it, as torch's parametrizations do it. Compiled blocks ask their modules for
    the class, which all layers share; a ``forward`` that one module has to itself, such as diffusers' hooks set, would
    make a graph of every block.

    Args:
        denoising: the run that the layer takes part in.
        expert: number of the transformer among those of the run.
        index: of the transformer block.
        module: the self-attention module.
    """

    def __init__(self, denoising: Denoising, expert: int, index: int, module: torch.nn.Module) -> None:
        self._denoising, self._expert, self._index = denoising, expert, index
        self._number = number_of(self)
        self._module, self._kind = module, cast(Any, type(module))
        processor: Any = module.processor
        if hasattr(processor, "_attention_backend"):
            # From the class to the object, where calls will leave it: compiled graphs ask which.
            processor._attention_backend = processor._attention_backend
        setattr(module, _LAYER, self)
        module.__class__ = _hooked(self._kind)

    def remove(self) -> None:
        """Restore the module, where no newer layer has taken this one's place."""
        if getattr(self._module, _LAYER, None) is self:
            delattr(self._module, _LAYER)
            # Somebody else may have made a class of ours since; without a layer it does nothing.
            if type(self._module) is _hooked(self._kind):
                self._module.__class__ = self._kind

    def forward(self, processor: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run ``call(*args, **kwargs)``, the forward pass of the module, which has this processor."""
        # Kandinsky's own, whose mask is none of torch's attention and whose tokens have an order of their own.
        own = OWN_SPARSE_ATTENTION if kwargs.get("sparse_params") is not None else None
        reason = own or parallel_refusal(processor)
        if reason is not None:
            self._stay_dense(reason)
            return call(*args, **kwargs)
        # Processors that know no backends call torch's attention as it is. The others are made to, for a while.
        dispatches = hasattr(processor, "_attention_backend")
        chosen = processor._attention_backend if dispatches else None
        # diffusers takes a backend and its name alike.
        catch = _Catch(self._caught, (getattr(chosen, "value", chosen) or _ACTIVE) if dispatches else _TORCH)
        if dispatches:
            processor._attention_backend = AttentionBackendName.NATIVE
        try:
            with catch:
                out = call(*args, **kwargs)
        finally:
            if dispatches:
                processor._attention_backend = chosen
        if not catch.caught:
            # A cache answered for the layer, or its processor has an attention of its own.
            self._stay_dense(NO_TORCH_ATTENTION)
        return out

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float | None,
        backend: str | None,
    ) -> torch.Tensor:
        """Run a call of nothing else than PSA computes, sparse or dense; ``backend`` is for dense."""
        denoising = self._denoising
        call: dict[str, Any] = {"query": q, "key": k, "value": v, "attn_mask": mask, "scale": scale}
        tokens = denoising.unmasked(q.shape[2], mask)
        if tokens is None:
            with denoising.dense_call(MASKED, q.device, self._index):
                return _dense(backend, **call)
        padding = q[:, :, tokens:]
        if padding.shape[2]:
            q, k, v = (x[:, :, :tokens] for x in (q, k, v))
        place = denoising.place(self._expert, self._index, tokens, first_head(self._module))
        reason = denoising.run.dense_reason(q, k, place)
        if reason is None:
            out = denoising.run.attend(q, k, v, place)
        else:
            with denoising.dense_call(reason, q.device, self._index):
                chosen = denoising.run.attend_dense(q, k, v, reason)
                if chosen is None:
                    return _dense(backend, **call)
            out = chosen
        if not padding.shape[2]:
            return out
        # Nobody sees what padding gives, but it has to be numbers.
        return torch.cat([out, _dense(backend, query=padding, key=k, value=v, scale=scale)], dim=2)

    def _caught(self, backend: str | None, call: dict[str, Any]) -> torch.Tensor:
        """Run a caught call, or put it into the graph under way; ``backend`` is what the model would have called."""
        reason = first_reason(DIFFUSERS, _request(call))
        if reason is not None:
            self._stay_dense(reason)
            return _dense(backend, **call)
        given = call["query"], call["key"], call["value"], call["attn_mask"], call["scale"], backend
        if is_traced():
            return attend(*given, self._number, self._denoising.number)
        return self.attend(*given)

    def _stay_dense(self, reason: str) -> None:
        if is_traced():
            stay_dense(self._denoising.number, reason)
        else:
            self._denoising.stay_dense(reason)


@cache
def _hooked(kind: Any) -> Any:
    class Hooked(kind):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            layer = getattr(self, _LAYER, None)
            if layer is None:
                return super().__call__(*args, **kwargs)
            return layer.forward(self.processor, super().__call__, args, kwargs)

        def __reduce_ex__(self, protocol: Any) -> Any:
            """How copies and pickles are made: of what the module is without the layer."""
            state = super().__reduce_ex__(protocol)[2]
            without_layer = {name: x for name, x in state.items() if name != _LAYER}
            return object.__new__, (kind if type(self) is Hooked else type(self),), without_layer

    Hooked.__name__, Hooked.__qualname__, Hooked.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Hooked


class _Catch(TorchFunctionMode):
    """While it is active, this thread's calls of ``scaled_dot_product_attention`` go to ``attend(backend, call)``."""

    def __init__(self, attend: Callable[[str | None, dict[str, Any]], torch.Tensor], backend: str | None) -> None:
        super().__init__()
        self.caught = False
        self._attend, self._backend = attend, backend

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.unflatten:
            func = torch.unflatten  # the method calls super(), where torch.compile cannot follow
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.caught = True
        return self._attend(self._backend, _call(*args, **(kwargs or {})))


def _call(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> dict[str, Any]:
    """The arguments of torch's attention, which has no signature that can be asked for, by name."""
    return {
        "query": query,
        "key": key,
        "value": value,
        "attn_mask": attn_mask,
        "dropout_p": dropout_p,
        "is_causal": is_causal,
        "scale": scale,
        "enable_gqa": enable_gqa,
    }


def _dense(backend: str | None, **call: Any) -> torch.Tensor:
    """The attention that the model would have run, with torch's arguments and shapes ``[B, H, L, D]``."""
    if backend is _TORCH:
        return scaled_dot_product_attention(**call)
    # diffusers has tokens before heads.
    q, k, v = (call.pop(name).transpose(1, 2) for name in ("query", "key", "value"))
    chosen = AttentionBackendName(backend) if backend else None
    return dispatch_attention_fn(q, k, v, **call, backend=chosen).transpose(1, 2)


def _request(call: dict[str, Any]) -> Request:
    """What a call of torch's attention asks for."""
    q, k, v = call["query"], call["key"], call["value"]
    return Request(
        q.shape[2],
        k.shape[2],
        q.shape[3],
        causal=call["is_causal"],
        dropout=bool(call["dropout_p"]),
        grouped=call["enable_gqa"],
        scale=call["scale"],
        gradients=wants_gradients(q, k, v),
        dtypes=(q.dtype, k.dtype, v.dtype),
    )
