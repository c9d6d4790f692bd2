"""The name ``psa`` among transformers' attention implementations, and the models that go by it.

A model finds its attention and its masks by the name that its settings hold, and two models may share their settings.
So a patch takes note of its layers one by one, and of the settings that it has changed: other layers with those run
what the settings said before.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from ...ops.modes import is_traced
from ...settings.config import PSAConfig
from ...settings.errors import ConfigError
from ..run import Run
from .attention import attend, dense_attention
from .layer_call import LayerCall
from .masks import deferred_or_made
from .prompt import Prompt
from .settings import default_settings

NAME = "psa"
LAYER = "_psa_layer"
# What models that have no other run.
DEFAULT_BASE = "sdpa"
_NO_LAYER = object()


class Layer:
    """A patched layer: whose it is, the prompt that it takes part in, and its number."""

    def __init__(self, handle: Any, prompt: Prompt, index: int) -> None:
        self.handle, self.prompt, self.index = handle, prompt, index

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        """Copies and pickles of a layer are not patched. Their settings go on naming ``psa``, where they are made."""
        return Registration.keep, ()


class Switched:
    """Settings of a model that name ``psa`` for the sake of patches, by identity.

    Attributes:
        base: the attention implementation that they named before.
        patches: how many there are.
    """

    _all: dict[int, tuple[weakref.ref[Any], Switched]] = {}  # noqa: RUF012

    def __init__(self, config: Any, default: str) -> None:
        self.before = config._attn_implementation
        self.base = default if self.before in (None, NAME) else self.before
        self.patches = 0

    @classmethod
    def find(cls, config: Any) -> Switched | None:
        """What is noted of settings; None for nothing."""
        of, switched = cls._all.get(id(config), (None, None))
        return switched if of is not None and of() is config else None

    @classmethod
    def on(cls, config: Any, default: str) -> Switched:
        """Name ``psa`` in settings, once more; ``default`` is what dense calls run where they named no other."""
        switched = cls.find(config) or cls(config, default)
        key = id(config)
        cls._all[key] = weakref.ref(config, lambda _: cls._all.pop(key, None)), switched
        switched.patches += 1
        config._attn_implementation_internal = NAME
        Registration.add()
        return switched

    @classmethod
    def off(cls, config: Any) -> None:
        """Take that back; with the last patch settings are what they were."""
        switched = cls.find(config)
        assert switched is not None
        switched.patches -= 1
        if not switched.patches:
            # Somebody may have chosen another since.
            if config._attn_implementation == NAME:
                config._attn_implementation_internal = switched.before
            del cls._all[id(config)]
        Registration.remove()


class Registration:
    """Whether transformers knows the name: as long as there are patches, or for good."""

    _patches = 0
    _kept = False

    @classmethod
    def add(cls) -> None:
        cls._patches += 1
        cls._register()

    @classmethod
    def keep(cls) -> None:
        cls._kept = True
        cls._register()

    @classmethod
    def remove(cls) -> None:
        cls._patches -= 1
        if not cls._patches and not cls._kept:
            for interface in (AttentionInterface, AttentionMaskInterface):
                interface._global_mapping.pop(NAME, None)

    @classmethod
    def _register(cls) -> None:
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, _mask)


class Unpatched:
    """Models that were loaded with ``attn_implementation="psa"``: a prompt for each settings of a language model.

    Attributes:
        settings: of all of them; None for the default preset of each.
    """

    settings: PSAConfig | None = None
    _prompts: dict[int, tuple[weakref.ref[Any], Prompt]] = {}  # noqa: RUF012

    @classmethod
    def prompt(cls, config: Any) -> Prompt:
        of, prompt = cls._prompts.get(id(config), (None, None))
        if of is None or prompt is None or of() is not config:
            key = id(config)
            prompt = Prompt(Run(cls.settings or default_settings(config)), DEFAULT_BASE)
            cls._prompts[key] = weakref.ref(config, lambda _: cls._prompts.pop(key, None)), prompt
        return prompt

    @classmethod
    def use(cls, settings: PSAConfig | None) -> None:
        """Take these settings from now on."""
        cls.settings = settings
        cls._prompts.clear()


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,
    **arguments: Any,
) -> tuple[torch.Tensor, Any]:
    """The attention function of the name."""
    layer: Any = getattr(module, LAYER, _NO_LAYER)
    config: Any = module.config
    call = LayerCall(module, query, key, value, attention_mask, arguments)
    if is_traced():
        return dense_attention(_base(config), call)
    if isinstance(layer, Layer):
        return attend(layer.prompt, layer.index, call)
    # Layers that share their settings with patched ones.
    if Switched.find(config) is not None:
        return dense_attention(_base(config), call)
    if arguments.get("s_aux") is not None:
        allowed = f"stands on {DEFAULT_BASE}, which leaves out the sinks that this model has learned: use patch(model)"
        raise ConfigError("attn_implementation", NAME, allowed)
    # Copies of patched layers, and vision towers.
    if layer is None or not getattr(module, "is_causal", True):
        return dense_attention(_base(config), call)
    return attend(Unpatched.prompt(config), getattr(module, "layer_idx", None) or 0, call)


def _mask(*, config: Any = None, **arguments: Any) -> Any:
    """The mask function of the name."""
    return deferred_or_made(_base(config), arguments | {"config": config})


def _base(config: Any) -> str:
    """The attention implementation that dense calls run."""
    switched = Switched.find(config)
    return DEFAULT_BASE if switched is None else switched.base
