"""Which model a transformer is, by the name of its class in diffusers, of which an older one lacks some."""

from __future__ import annotations

from typing import Any

import torch

from .any_model import ANY
from .cogvideox import COGVIDEOX
from .cosmos import COSMOS
from .family import Family, Inputs, Tokens, heads_of
from .hunyuan_video import HUNYUAN_VIDEO, HUNYUAN_VIDEO_1_5
from .kandinsky5 import KANDINSKY5
from .ltx import LTX
from .minimax_h3 import MINIMAX_H3
from .mochi import MOCHI
from .wan import WAN, WAN_ANIMATE, WAN_VACE

__all__ = ["FAMILIES", "Family", "Inputs", "Tokens", "family_of", "heads_of", "transformers_of"]

FAMILIES = {
    "WanTransformer3DModel": WAN,
    "WanVACETransformer3DModel": WAN_VACE,
    "WanAnimateTransformer3DModel": WAN_ANIMATE,
    "SkyReelsV2Transformer3DModel": WAN,
    "ChronoEditTransformer3DModel": WAN,
    "CogVideoXTransformer3DModel": COGVIDEOX,
    "HunyuanVideoTransformer3DModel": HUNYUAN_VIDEO,
    "HunyuanVideo15Transformer3DModel": HUNYUAN_VIDEO_1_5,
    "LTXVideoTransformer3DModel": LTX,
    "LTX2VideoTransformer3DModel": LTX,
    "Kandinsky5Transformer3DModel": KANDINSKY5,
    "CosmosTransformer3DModel": COSMOS,
    "MochiTransformer3DModel": MOCHI,
    "MiniMaxH3Transformer3DModel": MINIMAX_H3,
}
_COMPONENTS = ("transformer", "transformer_2", "transformer_ref", "unet")


def family_of(transformer: torch.nn.Module) -> Family:
    """The family of a model; one that is not known is of a family without a grid."""
    names = (kind.__name__ for kind in type(transformer).__mro__)
    return next((FAMILIES[name] for name in names if name in FAMILIES), ANY)


def transformers_of(target: Any) -> dict[str, torch.nn.Module]:
    """The models that denoise in a pipeline by their names in it, or the one that was given, as ``transformer``.

    Raises:
        TypeError: there is none, or one without attention that can be patched; the message says what can.
    """
    whole = not isinstance(target, torch.nn.Module)
    components = {name: getattr(target, name, None) for name in _COMPONENTS} if whole else {_COMPONENTS[0]: target}
    # torch.compile wraps a module in another.
    found = {name: getattr(x, "_orig_mod", x) for name, x in components.items() if x is not None}
    if found and all(isinstance(x, torch.nn.Module) and family_of(x).modules(x) for x in found.values()):
        return found
    held = ", ".join(type(x).__name__ for x in found.values() if x is not target)
    given = type(target).__name__ + (f" with {held}" if held else "")
    raise TypeError(f"only a model of diffusers with attention, or a pipeline with one, can be patched, not {given}")
