"""Latents of clips, kept on the GPU because drawing and encoding a clip takes longer than learning from it."""

from __future__ import annotations

from typing import Any

import torch
from tqdm import tqdm

from ..clips import draw_whole, random_scenes
from . import gpus
from .scale import normalised
from .whole_clip import encode

# Clips at a time: drawing needs memory.
_AT_ONCE = 8


class Bank:
    """Latents of random clips, a few of them new at every call of :meth:`refresh`.

    Args:
        autoencoder: an ``AutoencoderKLWan`` whose latents have Wan's scale (``scale.py``).
        size: how many clips, over all GPUs.
        seed: of the clips.
        every: batches between one refresh and the next.
    """

    def __init__(self, autoencoder: Any, size: int, seed: int, every: int = 4) -> None:
        self._autoencoder, self._every = autoencoder, every
        self._generator = gpus.generator(seed)
        self._calls, self._next = 0, 0
        size = gpus.share(size) // _AT_ONCE * _AT_ONCE
        parts = [self._new() for _ in tqdm(range(0, size, _AT_ONCE), "latents", disable=gpus.rank() > 0)]
        self._latents = torch.cat([latents for latents, _ in parts])
        self._words = torch.cat([words for _, words in parts])

    def refresh(self) -> None:
        """Replace the oldest clips, now and then."""
        self._calls += 1
        if self._calls % self._every:
            return
        part = slice(self._next, self._next + _AT_ONCE)
        self._latents[part], self._words[part] = self._new()
        self._next = part.stop % len(self._latents)

    def draw(self, count: int, frames: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The first ``frames`` of random latents, about standard normal, and the numbers of their words.

        Returns:
            ``[count, 16, frames, 40, 48]`` and ``[count, 8]``.
        """
        chosen = torch.randint(len(self._words), (count,), generator=generator, device=gpus.device())
        return self._latents[chosen, :, :frames].float(), self._words[chosen]

    @torch.no_grad()
    def _new(self) -> tuple[torch.Tensor, torch.Tensor]:
        scenes = random_scenes(_AT_ONCE, self._generator)
        with gpus.half_precision():
            mean, _ = encode(self._autoencoder, draw_whole(scenes))
        return normalised(self._autoencoder, mean.float()).bfloat16(), scenes.word_numbers()
