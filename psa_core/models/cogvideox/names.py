"""CogVideoX's module names in diffusers' files and in ComfyUI's model.

Both models hold the same weights in the same layout; only names differ. Knows no host.
"""

from __future__ import annotations

import re

# Inside a transformer block: diffusers' name to ComfyUI's. Modules that are not here have one name in both.
BLOCK_NAMES = {
    "attn1.to_q": "q",
    "attn1.to_k": "k",
    "attn1.to_v": "v",
    # Fused, as in LoRAs only; the model has them apart.
    "attn1.to_qkv": "qkv",
    "attn1.to_out.0": "attn_out",
    "attn1.norm_q": "norm_q",
    "attn1.norm_k": "norm_k",
    "ff.net.0.proj": "ff_proj",
    "ff.net.2": "ff_out",
}

# Outside the blocks, likewise.
OUTER_NAMES = {
    f"{embedding}_embedding.linear_{index}": f"{embedding}_embedding_linear_{index}"
    for embedding in ("time", "ofs")
    for index in (1, 2)
}

_BLOCK_NAMES_BACK = {core: diffusers for diffusers, core in BLOCK_NAMES.items()}
_OUTER_NAMES_BACK = {core: diffusers for diffusers, core in OUTER_NAMES.items()}


def core_name(module: str) -> str:
    """ComfyUI's name of what diffusers calls `module`: ``transformer_blocks.3.attn1.to_q`` -> ``blocks.3.q``.

    Names that are not diffusers' come back as they are.
    """
    block = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", module)
    if block is None:
        return OUTER_NAMES.get(module, module)
    return f"blocks.{block[1]}.{BLOCK_NAMES.get(block[2], block[2])}"


def diffusers_name(module: str) -> str:
    """diffusers' name of what ComfyUI calls `module`: the way back of :func:`core_name`."""
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
    if block is None:
        return _OUTER_NAMES_BACK.get(module, module)
    return f"transformer_blocks.{block[1]}.{_BLOCK_NAMES_BACK.get(block[2], block[2])}"


def core_parameter(parameter: str) -> str:
    """ComfyUI's name of a parameter, whatever its last part is (``weight``, ``bias``, a scale)."""
    module, dot, last = parameter.rpartition(".")
    return f"{core_name(module)}{dot}{last}"
