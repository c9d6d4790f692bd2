"""Whether an attention mask masks anything."""

from __future__ import annotations

import weakref

import torch

# What was found of a mask's tensor, by its identity while it lives, and of its contents at the time.
_found: dict[int, tuple[weakref.ref[torch.Tensor], int, bool]] = {}


def masks_something(mask: torch.Tensor) -> bool:
    """Whether a mask changes any logit: models pass masks of ones, or of zeros to add, for prompts without padding.

    A model hands one tensor to all of its layers, and it is read once. Of a tensor on a GPU that is a wait for it, as
    samplers wait once a step.

    Args:
        mask: bool, True where a query sees a key; or a number to add to logits.
    """
    known = _found.get(id(mask))
    # Under inference mode nobody counts the changes of a tensor.
    version = -1 if mask.is_inference() else mask._version
    if known is not None and known[0]() is mask and known[1] == version:
        return known[2]
    found = not bool(mask.all()) if mask.dtype == torch.bool else bool(mask.any())
    key = id(mask)
    _found[key] = weakref.ref(mask, lambda _: _found.pop(key, None)), version, found
    return found
