"""What is packed, and how a packed number is read."""

from __future__ import annotations

from typing import NamedTuple

import torch

# The largest magnitude of INT8 keys and queries, and of values by their dtype: FP8 (e4m3) has room up to 448, which
# rounding may not pass.
INT8_TOP = 127.0
VALUE_DTYPES = {"int8": torch.float16, "int8+fp8": torch.float8_e4m3fn}
VALUE_TOP = {torch.float8_e4m3fn: 440.0, torch.float16: 1.0}


class Packed(NamedTuple):
    """Keys and values of level 1 in the order in which blocks are cut, in tiles of so many tokens, one after another.

    The last block is filled up with its last token.

    Attributes:
        k: int8 ``[B, H, tiles, tile, D]``: key less ``center``, by ``k_scale``.
        k_scale: float32 ``[B, H, tiles]``.
        center: float32 ``[B, H, D]``, which all keys are less of. It takes the same from all logits of a query.
        v: ``[B, H, tiles, D, tile]``, FP8 (e4m3), with tokens innermost, as its matrix instruction wants them: of 16
            tokens, ``8 j + 2 c + e`` at place ``4 c + 2 j + e``, where the threads that have computed a token's weight
            need it; or float16 ``[B, H, tiles, tile, D]``. Value by its channel's share of ``v_max``.
        v_max: float32 ``[B, H, D]``: the largest magnitude of each channel.
        tile: tokens of a tile.
    """

    k: torch.Tensor
    k_scale: torch.Tensor
    center: torch.Tensor
    v: torch.Tensor
    v_max: torch.Tensor
    tile: int

    @property
    def v_top(self) -> float:
        """The packed value that stands for ``v_max``."""
        return VALUE_TOP[self.v.dtype]

    def dequantised(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values that are meant, float32 ``[B, H, tokens, D]``, in order."""
        k = self.k.float() * self.k_scale[..., None, None] + self.center[:, :, None, None]
        v = self.v.float()
        if self.v.dtype == torch.float8_e4m3fn:
            v = v.unflatten(-1, (-1, 4, 2, 2)).transpose(-3, -2).flatten(-4).mT
        v = v * (self.v_max / self.v_top)[:, :, None, None]
        return k.flatten(2, 3)[:, :, :tokens], v.flatten(2, 3)[:, :, :tokens]
