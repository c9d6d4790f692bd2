"""What is packed, and how a packed number is read."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..pyramid.rows import Pyramid

# The largest magnitude of values of level 1 by their dtype: FP8 (e4m3) has room up to 448, which rounding may not pass.
VALUE_DTYPES = {"int8": torch.float16, "int8+fp8": torch.float8_e4m3fn}
VALUE_TOP = {torch.float8_e4m3fn: 440.0, torch.float16: 1.0}


class PackedRows(NamedTuple):
    """Pooled rows, numbered as those of :class:`psa_core.ops.pyramid.rows.Pyramid`; pooled first and then packed.

    Attributes:
        k: int8 ``[B, H, rows, D]``: mean of keys less ``Packed.center``, by ``k_scale``.
        k_scale: float32 ``[B, H, rows]``.
        v: float16 ``[B, H, rows, D]``: mean of values by its channel's share of ``Packed.v_max``. Not FP8, whose
            matrix instruction wants rows innermost: rows of several blocks are gathered.
        max_level: the coarsest level that is there.
    """

    k: torch.Tensor
    k_scale: torch.Tensor
    v: torch.Tensor
    max_level: int


class Packed(NamedTuple):
    """Keys and values in the order in which blocks are cut: those of level 1 in tiles of so many tokens, one after
    another, and pooled rows.

    The last block is filled up with its last token.

    Attributes:
        k: int8 ``[B, H, tiles, tile, D]``: key less ``center``, by ``k_scale``.
        k_scale: float32 ``[B, H, tiles]``.
        center: float32 ``[B, H, D]``, which all keys are less of. It takes the same from all logits of a query.
        v: ``[B, H, tiles, D, tile]``, FP8 (e4m3), with tokens innermost, as its matrix instruction wants them: of 16
            tokens, ``8 j + 2 c + e`` at place ``4 c + 2 j + e``, where the threads that have computed a token's weight
            need it; or float16 ``[B, H, tiles, tile, D]``. Value by its channel's share of ``v_max``.
        v_max: float32 ``[B, H, D]``: the largest magnitude of each channel.
        pooled: rows of the other levels.
        tile: tokens of a tile.
    """

    k: torch.Tensor
    k_scale: torch.Tensor
    center: torch.Tensor
    v: torch.Tensor
    v_max: torch.Tensor
    pooled: PackedRows
    tile: int

    @property
    def v_top(self) -> float:
        """The packed value of level 1 that stands for ``v_max``."""
        return VALUE_TOP[self.v.dtype]

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in (*self, *self.pooled) if isinstance(x, torch.Tensor))

    def dequantised(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values that are meant, float32 ``[B, H, tokens, D]``, in order."""
        k = self.k.float() * self.k_scale[..., None, None] + self.center[:, :, None, None]
        v = self.v.float()
        if self.v.dtype == torch.float8_e4m3fn:
            v = v.unflatten(-1, (-1, 4, 2, 2)).transpose(-3, -2).flatten(-4).mT
        v = v * (self.v_max / self.v_top)[:, :, None, None]
        return k.flatten(2, 3)[:, :, :tokens], v.flatten(2, 3)[:, :, :tokens]

    def dequantised_rows(self) -> Pyramid:
        """The pooled rows that are meant, float32."""
        k = self.pooled.k.float() * self.pooled.k_scale[..., None] + self.center[:, :, None]
        return Pyramid(k, self.pooled.v.float() * self.v_max[:, :, None], self.pooled.max_level)
