"""The LoRA of one layer: whether it fits the model's weight, and as what ComfyUI's loader takes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from ..names import diffusers_name
from .alpha import AlphaRule
from .keys import unfused

Shapes = Mapping[str, Sequence[int]]
"""Sizes of a model's parameters by ComfyUI's names."""

Tensors = Mapping[str, torch.Tensor]

_WHOLE = {"diff": "weight", "diff_b": "bias"}
# What fused layers have in common. Of all else each gets its third of the rows.
_SHARED = ("lora_down.weight", "alpha")


def fit(layer: str, parts: Tensors, shapes: Shapes, rule: AlphaRule) -> tuple[Tensors, dict[str, str]]:
    """Name the parts of one layer's LoRA for ComfyUI's loader.

    Args:
        layer: as :meth:`~.keys.Layers.find` names it.
        parts: the tensors as :func:`~.keys.split_key` names them; never both factors and ``diff``.
        shapes: of the model's parameters.
        rule: where alpha comes from when it is not among the parts.

    Returns:
        The tensors by ComfyUI's names, and why each of the parts that do not fit is left out.
    """
    layers = unfused(layer)
    sizes = {
        name: (len(layers) * shapes[parameter][0], *shapes[parameter][1:])
        for name in ("weight", "bias")
        if (parameter := f"{layers[0]}.{name}") in shapes
    }
    factors = {part: x for part, x in parts.items() if part not in _WHOLE}
    reasons = dict.fromkeys(factors, _misfit(factors, sizes["weight"], len(layers) > 1))
    for part in parts.keys() & _WHOLE.keys():
        reasons[part] = _misfit_whole(parts[part], _WHOLE[part], sizes)

    fitting = {part: x for part, x in parts.items() if not reasons[part]}
    if "lora_down.weight" in fitting and "alpha" not in fitting:
        alpha = rule.of(diffusers_name(layer), fitting["lora_down.weight"].shape[0])
        if alpha is not None:
            fitting["alpha"] = torch.tensor(alpha)
    if "magnitude" in fitting:
        fitting["dora_scale"] = fitting.pop("magnitude").reshape(-1, *(1 for _ in sizes["weight"][1:]))
    mapped = {
        f"{own}.{part}": x if part in _SHARED else x.chunk(len(layers))[index]
        for index, own in enumerate(layers)
        for part, x in fitting.items()
    }
    return mapped, {part: why for part, why in reasons.items() if why}


def _misfit(factors: Tensors, weight: Sequence[int], fused: bool) -> str:
    """Why a LoRA cannot be applied; empty for one that can."""
    missing = [f"lora_{half}" for half in ("down", "up") if f"lora_{half}.weight" not in factors]
    if missing:
        return " and ".join(missing) + " missing"
    down, up = factors["lora_down.weight"].shape, factors["lora_up.weight"].shape
    if min(len(down), len(up)) < 2 or down[0] != up[1:].numel():
        return f"lora_up of {_size(up)} times lora_down of {_size(down)} is no product"
    made_for, expected = (up[0], down[1:].numel()), (weight[0], math.prod(weight[1:]))
    if made_for != expected:
        return f"for a weight of {_size(made_for)}, this one has {_size(expected)}"
    if "alpha" in factors and factors["alpha"].numel() != 1:
        return f"alpha is of {_size(factors['alpha'].shape)}"
    if "alpha" in factors and not factors["alpha"].isfinite().all():
        return f"alpha is {factors['alpha'].item()}"
    # DoRA's norms are of the weight's rows, or of its columns, which fused weights do not have apart.
    axes = range(1 if fused else min(2, len(weight)))
    allowed = [tuple(size if axis == kept else 1 for axis, size in enumerate(weight)) for kept in axes]
    for part in ("magnitude", "dora_scale"):
        norms = factors[part].shape if part in factors else None
        if norms is not None and not (norms.numel() == weight[0] if part == "magnitude" else tuple(norms) in allowed):
            return f"DoRA norms of {_size(norms)} for a weight of {_size(expected)}"
    return ""


def _misfit_whole(difference: torch.Tensor, name: str, sizes: Shapes) -> str:
    """Why the difference of a whole weight or bias cannot be added; empty for one that can."""
    if name not in sizes:
        return f"the layer has no {name}"
    if tuple(difference.shape) == sizes[name]:
        return ""
    return f"for a {name} of {_size(difference.shape)}, this one has {_size(sizes[name])}"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"
