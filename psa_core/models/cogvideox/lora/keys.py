"""Keys of a LoRA file: which layer's LoRA a tensor belongs to, and which part of it it is."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..names import diffusers_name

# Of trainers and wrappers, with dots read as underscores.
_PREFIX = re.compile(
    "lora_unet__?|lora_transformer_|lycoris_|base_model_model_|diffusion_model_|model_|transformer_|unet_|module_"
    "|_orig_mod_"
)

# peft writes an adapter's name before or in place of "weight" when whole models are saved.
_WEIGHT = r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?"
# By the endings that ComfyUI's loader reads, but for peft's norms of DoRA, of which it knows only LyCORIS'.
_PARTS = {
    "lora_down.weight": r"(?:\.lora_(?:A|down)|[._]lora\.down|\.lora_linear_layer\.down)" + _WEIGHT,
    "lora_up.weight": r"(?:\.lora_(?:B|up)|[._]lora\.up|\.lora_linear_layer\.up)" + _WEIGHT,
    "alpha": r"\.alpha",
    "dora_scale": r"\.dora_scale",
    "magnitude": r"\.lora_magnitude_vector" + _WEIGHT,
    "diff": r"\.diff",
    "diff_b": r"\.diff_b",
}
# The longest names that any trainer writes are under 100 characters.
_LONGEST_KEY = 512
_PATTERNS = {part: re.compile("(.+?)" + ending) for part, ending in _PARTS.items()}


def split_key(key: str) -> tuple[str, str] | None:
    """The layer's name and the part: ComfyUI's ending of it, or ``magnitude``. None for no part of a LoRA."""
    if len(key) > _LONGEST_KEY:
        return None
    for part, pattern in _PATTERNS.items():
        found = pattern.fullmatch(key)
        if found is not None:
            return found[1], part
    return None


class Layers:
    """The layers of one model, found by any name that a LoRA file may use.

    Dots count as underscores, so that the flattened names of kohya's scripts are found as well.
    """

    def __init__(self, layers: Iterable[str]) -> None:
        """Takes ComfyUI's names, such as ``blocks.0.q``."""
        names = set(layers)
        names |= {f"{name}kv" for name in names if name.endswith(".q")}
        self._names = {alias.replace(".", "_"): name for name in names for alias in (name, diffusers_name(name))}

    def find(self, name: str) -> str | None:
        """ComfyUI's name of a layer, whatever prefixes trainers gave it; None for a layer that the model lacks.

        Queries, keys and values fused into one are ``blocks.0.qkv``, which the model has as three layers.
        """
        flat = name.replace(".", "_")
        while flat not in self._names:
            prefix = _PREFIX.match(flat)
            if prefix is None:
                return None
            flat = flat[prefix.end() :]
        return self._names[flat]


def unfused(layer: str) -> tuple[str, ...]:
    """The model's layers behind a name that :meth:`Layers.find` gives: three for ``qkv``."""
    block, _, last = layer.rpartition(".")
    return tuple(f"{block}.{part}" for part in "qkv") if last == "qkv" else (layer,)
