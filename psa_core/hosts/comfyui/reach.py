"""Reaching the attention of a model that another node has compiled, or whose forward another node has replaced."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP, get_wrappers_with_key

from .forward import forward_under_way
from .override import attention_override

log = logging.getLogger(__name__)

OVERRIDE_KEY = "optimized_attention_override"
_OPTIONS = "transformer_options"
_COMPILE_KEY = "torch.compile"


def is_compiled(model: torch.nn.Module, options: dict[str, Any]) -> bool:
    """Whether a node has compiled a model, whole or in parts.

    Args:
        model: ComfyUI's ``BaseModel``.
        options: ``transformer_options`` of the forward.
    """
    if get_wrappers_with_key(WrappersMP.APPLY_MODEL, _COMPILE_KEY, options):
        return True
    return any(module._compiled_call_impl is not None or hasattr(module, "_orig_mod") for module in model.modules())


def forget_graphs() -> None:
    """Have what is compiled compiled anew.

    Compiled code belongs to a model's class. A graph from before the patch knows no override, and a node may have
    dropped all guards that would tell, that of :func:`~psa_core.hosts.comfyui.forward.under_way` with them. One that is
    made with the patch serves models without it as well.
    """
    log.info("PSA: the model was compiled without the patch, and is compiled anew")
    torch._dynamo.reset()


class OptionsForBlocks:
    """Hands ``transformer_options`` to modules that are called without them, as forwards of other nodes do.

    Args:
        model: ComfyUI's ``BaseModel``, whose modules are hooked until :meth:`remove`.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._handles = [
            module.register_forward_pre_hook(partial(_with_override, place), with_kwargs=True)
            for module, place in _takers(model)
        ]

    def remove(self) -> None:
        """Leave the modules as they were."""
        for handle in self._handles:
            handle.remove()


def _takers(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, int]]:
    """Modules whose forward takes the options, and the place of the options among its arguments."""
    for module in model.modules():
        try:
            names = list(inspect.signature(module.forward).parameters)
        except (TypeError, ValueError):
            continue
        if _OPTIONS in names:
            yield module, names.index(_OPTIONS)


def _with_override(
    place: int, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    forward, given = forward_under_way(), kwargs.get(_OPTIONS) or {}
    if forward is None or len(args) > place or OVERRIDE_KEY in given:
        return None
    return args, {**kwargs, _OPTIONS: {**given, OVERRIDE_KEY: attention_override}}
