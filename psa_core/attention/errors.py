"""Relative errors, as norms by norms, and those of a trial of level maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from .chunks import Chunk, join

_TINY = torch.finfo(torch.float32).tiny


def squares(x: torch.Tensor) -> torch.Tensor:
    """Squared norms of matrices, ``[...]`` of ``[..., n, D]``."""
    return x.square().sum((-2, -1))


def relative_error(wrong: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Norm by norm, from squares."""
    return (wrong / right.clamp_min(_TINY)).sqrt()


def spot_of(blocks: int) -> slice:
    """Which blocks of a trial are measured again later: two, where there are as many."""
    return slice(2, 6, 3) if blocks > 5 else slice(0, 2)


class Errors(NamedTuple):
    """Squared norms in each query block of a trial.

    Attributes:
        wrong: float32 ``[C, B, H, blocks]``: of the output of each of C trials less that of dense attention.
        right: the same of the output of dense attention.
    """

    wrong: torch.Tensor
    right: torch.Tensor

    def relative(self) -> torch.Tensor:
        """Relative errors of all blocks together, float32 ``[C, B, H]``."""
        return relative_error(self.wrong.sum(-1), self.right.sum(-1))

    def spot(self, trial: torch.Tensor) -> torch.Tensor:
        """Squared norms of the blocks that are measured again: float32 ``[2, B, H]``, wrong and right.

        Args:
            trial: int64 ``[B, H]``, which of the C trials of each head.
        """
        at = trial[None, ..., None].expand(1, -1, -1, self.wrong.shape[-1])
        return torch.stack([x.gather(0, at)[0, ..., spot_of(at.shape[-1])].sum(-1) for x in (self.wrong, self.right)])

    @staticmethod
    def cat(errors: Sequence[Errors]) -> Errors:
        """One after another."""
        return Errors(*(torch.cat(parts) for parts in zip(*errors, strict=True)))

    @staticmethod
    def of_chunks(errors: Iterable[tuple[Chunk, Errors]], batch: int, heads: int) -> Errors:
        """Those of all heads from those of their chunks."""
        chunks, parts = zip(*errors, strict=True)
        squares = (
            join(((chunk, x.movedim(0, 2)) for chunk, x in zip(chunks, of_chunks, strict=True)), batch, heads)
            for of_chunks in zip(*parts, strict=True)
        )
        return Errors(*(x.movedim(2, 0) for x in squares))
