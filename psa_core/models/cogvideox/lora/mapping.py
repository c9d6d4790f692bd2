"""A LoRA file's tensors under the names of ComfyUI's CogVideoX model, and an account of what fitted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from ....settings.errors import ConfigError
from ....settings.words import cut
from .alpha import read_alpha
from .fit import Shapes, fit
from .keys import Layers, split_key, unfused

_EXAMPLES, _LONGEST_NAME = 3, 120


@dataclass(frozen=True)
class MappedLoRA:
    """What a file became.

    Attributes:
        tensors: ``<layer>.lora_up.weight``, ``.lora_down.weight``, ``.alpha``, ``.dora_scale``, ``.diff`` and
            ``.diff_b`` by ComfyUI's names of layers.
        total: keys in the file.
        unused: keys that change nothing, and why.
    """

    tensors: Mapping[str, torch.Tensor]
    total: int
    unused: Mapping[str, str]

    @property
    def weights(self) -> set[str]:
        """ComfyUI's names of the weights and biases that change."""
        split = (key.removesuffix(".weight").rpartition(".") for key in self.tensors)
        return {f"{layer}.bias" if part == "diff_b" else f"{layer}.weight" for layer, _, part in split}

    def line(self) -> str:
        """One line for users: how much fitted, and some of what did not."""
        used = self.total - len(self.unused)
        counts = [f"{used} of {self.total} keys", f"{len(self.weights)} weights patched"]
        ranks = {x.shape[0] for key, x in self.tensors.items() if key.endswith(".lora_down.weight")}
        if ranks:
            low, high = min(ranks), max(ranks)
            counts.append(f"rank {low}" if low == high else f"ranks {low} to {high}")
        dora = sum(key.endswith(".dora_scale") for key in self.tensors)
        if dora:
            counts.append(f"{dora} with DoRA")
        line = "CogVideoX LoRA: " + ", ".join(counts)
        return f"{line} | not used: {self.examples()}" if self.unused else line

    def examples(self) -> str:
        """A few of the unused keys, with the reason of each."""
        shown = ", ".join(f"{cut(key, _LONGEST_NAME)} ({why})" for key, why in list(self.unused.items())[:_EXAMPLES])
        more = len(self.unused) - _EXAMPLES
        return f"{shown} and {more} more" if more > 0 else shown


def map_lora(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None, shapes: Shapes) -> MappedLoRA:
    """Rename a LoRA's tensors for ComfyUI's CogVideoX model.

    Args:
        tensors: the file's, by diffusers', kohya's or ComfyUI's own names.
        metadata: the file's; diffusers states alpha there.
        shapes: of the model's parameters, by ComfyUI's names (``blocks.0.q.weight``).

    Returns:
        The tensors under ComfyUI's names. A fused LoRA of queries, keys and values is cut into three that share
        ``lora_down``. A LoRA that lacks a half, or is made for a weight of another size, is left out as a whole.

    Raises:
        ConfigError: a weight has two LoRAs, or diffusers' metadata are broken.
    """
    keys_by_layer, unused = _group(tensors, shapes)
    rule = read_alpha(metadata)
    mapped: dict[str, torch.Tensor] = {}
    for layer, keys in keys_by_layer.items():
        fitting, reasons = fit(layer, {part: tensors[key] for part, key in keys.items()}, shapes, rule)
        mapped |= fitting
        unused |= {keys[part]: why for part, why in reasons.items()}
    return MappedLoRA(mapped, len(tensors), {key: unused[key] for key in tensors if key in unused})


def _group(keys: Iterable[str], shapes: Shapes) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Keys by layer and part, and the keys that belong to none, with the reason."""
    layers = Layers(name.removesuffix(".weight") for name in shapes if name.endswith(".weight"))
    grouped: dict[str, dict[str, str]] = defaultdict(dict)
    unused: dict[str, str] = {}
    # Fused layers count as the three that they become. ComfyUI's loader keeps one patch a weight.
    owners: dict[tuple[str, str], str] = {}
    for key in keys:
        name, part = split_key(key) or (key, "")
        layer = layers.find(name)
        if not part or layer is None:
            unused[key] = "no such layer in this model" if part else "no part of a LoRA"
            continue
        for own in unfused(layer):
            owner = owners.setdefault((own, "lora_down.weight" if part == "diff" else part), key)
            if owner != key:
                raise ConfigError("key", key, f"changes the same weight as {owner!r}; keep one of the two")
        grouped[layer][part] = key
    return grouped, unused
