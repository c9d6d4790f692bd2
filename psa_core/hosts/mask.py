"""Whether an attention mask masks anything."""

from __future__ import annotations

import torch

from .read_once import read_once


def masks_something(mask: torch.Tensor) -> bool:
    """Whether a mask changes any logit: models pass masks of ones, or of zeros to add, for prompts without padding.

    A model hands one tensor to all of its layers, and it is read once. Of a tensor on a GPU that is a wait for it, as
    samplers wait once a step.

    Args:
        mask: bool, True where a query sees a key; or a number to add to logits.
    """
    # Between its layers no model changes it.
    return read_once(_masks_something, mask, changes_in_inference=False)


def _masks_something(mask: torch.Tensor) -> bool:
    return not bool(mask.all()) if mask.dtype == torch.bool else bool(mask.any())
