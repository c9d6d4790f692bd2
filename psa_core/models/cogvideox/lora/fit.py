"""The parts of one layer's LoRA: whether they fit the model's weight, and under which names ComfyUI takes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from .alpha import AlphaRule
from .layers import Target

Shapes = Mapping[str, Sequence[int]]
"""Sizes of a model's parameters by ComfyUI's names."""

Tensors = dict[str, torch.Tensor]

_WHOLE = {"diff": "weight", "diff_b": "bias"}


def fit(
    target: Target, parts: Mapping[str, torch.Tensor], shapes: Shapes, rule: AlphaRule
) -> tuple[Tensors, dict[str, str]]:
    """Rename the parts of one target's LoRA.

    Args:
        target: the layer, or three fused ones, of which each gets its third of the rows.
        parts: the tensors by the names that :func:`~.parts.split_key` gives; never both factors and ``diff``.
        shapes: of the model's parameters.
        rule: where alpha comes from when it is not among the parts.

    Returns:
        The tensors by ComfyUI's names, and why each of the parts that do not fit is left out.
    """
    factors = {part: x for part, x in parts.items() if part not in _WHOLE}
    mapped: Tensors = {}
    reasons: dict[str, str] = {}
    if factors:
        why = _misfit(target, factors, shapes)
        if why is None:
            mapped |= _factors(target, factors, shapes, rule)
        else:
            reasons |= dict.fromkeys(factors, why)
    for part in parts.keys() & _WHOLE.keys():
        why = _misfit_whole(target, part, parts[part], shapes)
        if why is None:
            pieces = parts[part].chunk(len(target.layers))
            mapped |= {f"{layer}.{part}": piece for layer, piece in zip(target.layers, pieces, strict=True)}
        else:
            reasons[part] = why
    return mapped, reasons


def _misfit(target: Target, factors: Mapping[str, torch.Tensor], shapes: Shapes) -> str | None:
    """Why a LoRA cannot be applied; None for one that can."""
    missing = [part for part in ("down", "up") if part not in factors]
    if missing:
        return " and ".join(f"lora_{part}" for part in missing) + " missing"
    down, up = factors["down"], factors["up"]
    shape = _shape(target, "weight", shapes)
    expected, made_for = (shape[0], math.prod(shape[1:])), (up.shape[:1].numel(), down.shape[1:].numel())
    if min(down.ndim, up.ndim) < 2 or down.shape[0] != up.shape[1:].numel():
        return f"lora_up of {_size(up.shape)} times lora_down of {_size(down.shape)} is no product"
    if made_for != expected:
        return f"for a weight of {_size(made_for)}, this one has {_size(expected)}"
    if "alpha" in factors and factors["alpha"].numel() != 1:
        return f"alpha is of {_size(factors['alpha'].shape)}"
    for part in ("magnitude", "dora_scale"):
        if part in factors and not _is_norm(factors[part], part, shape, len(target.layers) > 1):
            return f"DoRA norms of {_size(factors[part].shape)} for a weight of {_size(expected)}"
    return None


def _is_norm(norms: torch.Tensor, part: str, shape: Sequence[int], fused: bool) -> bool:
    """Whether DoRA's norms are of the weight's rows, or of its columns, which fused weights do not have apart."""
    if part == "magnitude":
        return norms.numel() == shape[0]
    if norms.ndim != len(shape) or norms.ndim < 2:
        return False
    of_rows = norms.shape[0] == norms.numel() == shape[0]
    of_columns = norms.shape[1] == norms.numel() == shape[1]
    return of_rows or (of_columns and not fused)


def _misfit_whole(target: Target, part: str, difference: torch.Tensor, shapes: Shapes) -> str | None:
    """Why the difference of a whole weight or bias cannot be added; None for one that can."""
    name = _WHOLE[part]
    if f"{target.layers[0]}.{name}" not in shapes:
        return f"the layer has no {name}"
    expected = _shape(target, name, shapes)
    if tuple(difference.shape) != expected:
        return f"for a {name} of {_size(difference.shape)}, this one has {_size(expected)}"
    return None


def _factors(target: Target, factors: Mapping[str, torch.Tensor], shapes: Shapes, rule: AlphaRule) -> Tensors:
    """The LoRA of each layer of a target."""
    down, norms = factors["down"], factors.get("dora_scale")
    if "magnitude" in factors:
        columns = [1] * (len(_shape(target, "weight", shapes)) - 1)
        norms = factors["magnitude"].reshape(-1, *columns)
    stated = factors["alpha"].item() if "alpha" in factors else rule.of(target.diffusers, down.shape[0])
    mapped: Tensors = {}
    for index, layer in enumerate(target.layers):
        rows = len(target.layers), index
        mapped |= {f"{layer}.lora_up.weight": _third(factors["up"], *rows), f"{layer}.lora_down.weight": down}
        if stated is not None:
            mapped[f"{layer}.alpha"] = torch.tensor(float(stated))
        if norms is not None:
            mapped[f"{layer}.dora_scale"] = _third(norms, *rows)
    return mapped


def _third(x: torch.Tensor, count: int, index: int) -> torch.Tensor:
    return x.chunk(count)[index]


def _shape(target: Target, name: str, shapes: Shapes) -> tuple[int, ...]:
    """Size of a target's weight or bias, fused ones on top of each other."""
    rows, *columns = shapes[f"{target.layers[0]}.{name}"]
    return len(target.layers) * rows, *columns


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"
