"""Names of CogVideoX's layers: diffusers' and ComfyUI's.

Both models hold the same weights in the same layout, with the same order of shift, scale and gate; only names differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..names import diffusers_name

_FUSED = ("q", "k", "v")
# Of trainers and wrappers, with dots read as underscores. The longer of two that begin alike comes first.
_PREFIX = re.compile(
    "(lora_unet__|lora_unet_|lora_transformer_|lycoris_|base_model_model_|diffusion_model_|model_|transformer_|unet_"
    "|module_|_orig_mod_)"
)


@dataclass(frozen=True)
class Target:
    """What a name in a file stands for.

    Attributes:
        layers: ComfyUI's names of the layers; three for queries, keys and values fused into one.
        diffusers: diffusers' name of the same.
    """

    layers: tuple[str, ...]
    diffusers: str


class Layers:
    """The layers of one model, found by any name that a LoRA file may use.

    Dots count as underscores, so that the flattened names of kohya's scripts are found as well.
    """

    def __init__(self, layers: Iterable[str]) -> None:
        """Takes ComfyUI's names, such as ``blocks.0.q``."""
        self._targets: dict[str, Target] = {}
        names = set(layers)
        for layer in names:
            self._add(layer, Target((layer,), diffusers_name(layer)))
        for block in {layer.rpartition(".")[0] for layer in names}:
            fused = tuple(f"{block}.{part}" for part in _FUSED)
            if names.issuperset(fused):
                target = Target(fused, diffusers_name(f"{block}.q").replace("to_q", "to_qkv"))
                self._add(f"{block}.qkv", target)

    def find(self, name: str) -> Target | None:
        """The target of a name, with or without the prefixes of trainers; None for a layer the model lacks."""
        flat = name.replace(".", "_")
        while flat not in self._targets:
            prefix = _PREFIX.match(flat)
            if prefix is None:
                return None
            flat = flat[prefix.end() :]
        return self._targets[flat]

    def _add(self, name: str, target: Target) -> None:
        for alias in (name, target.diffusers):
            self._targets[alias.replace(".", "_")] = target
