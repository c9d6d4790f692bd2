"""Clips from a network just trained, and how many of them show what was asked for."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import torch
from tqdm import tqdm

from psa_core.models.tiny_video.files import FLOW_SHIFT
from psa_core.models.tiny_video.vocabulary import COLOURS, GROUNDS, MOTIONS, PATTERNS, SHAPES, Words, indices

from ..clips import FRAMES, HEIGHT, WIDTH
from ..score import read_clip
from . import gpus
from .scale import restored
from .transformer import TRAIN_STEPS, embeddings
from .whole_clip import decode

_STEPS, _GUIDANCE = 20, 4.0
_AT_ONCE = 8
_LATENT = (16, (FRAMES - 1) // 4 + 1, HEIGHT // 8, WIDTH // 8)


def scored_words(rounds: int) -> list[Words]:
    """One object of each colour and shape a round, on a ground and with a motion of which every one has its turn."""
    pairs = list(product(COLOURS, SHAPES)) * rounds
    return [
        Words(colour, shape, MOTIONS[i % 6], pattern=PATTERNS[i // 3 % 4], ground=GROUNDS[i // 5 % 4])
        for i, (colour, shape) in enumerate(pairs)
    ]


@torch.no_grad()
def sample(autoencoder: Any, transformer: Any, words: list[Words], seed: int) -> torch.Tensor:
    """Clips ``[n, frames, height, width, 3]``, from 0 to 1, on the CPU."""
    generator = torch.Generator(gpus.device()).manual_seed(seed)
    parts = []
    for start in tqdm(range(0, len(words), _AT_ONCE), "samples"):
        numbers = torch.tensor([indices(x) for x in words[start : start + _AT_ONCE]], device=gpus.device())
        with gpus.half_precision():
            latents = _denoise(transformer, numbers, generator)
            clips = decode(autoencoder, restored(autoencoder, latents)).float()
        parts.append((clips.clamp(-1, 1) / 2 + 0.5).permute(0, 2, 3, 4, 1).cpu())
    return torch.cat(parts)


def score(clips: torch.Tensor, words: list[Words]) -> dict[str, float]:
    """Shares of the clips whose colour, shape, both, and motion are those that were asked for."""
    right: dict[str, int] = {"colour": 0, "shape": 0, "colour and shape": 0, "motion": 0}
    for clip, asked in zip(clips, words, strict=True):
        read = read_clip(clip.numpy())
        if read is None:
            continue
        moving = asked.motion if asked.motion not in ("still", "turning") else None
        hits = read.colour == asked.colour, read.shape == asked.shape
        for name, hit in zip(right, (*hits, all(hits), read.motion == moving), strict=True):
            right[name] += hit
    return {name: count / len(words) for name, count in right.items()}


def _denoise(transformer: Any, numbers: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Euler's method with classifier-free guidance."""
    device, count = numbers.device, len(numbers)
    latents = torch.randn(count, *_LATENT, generator=generator, device=device)
    nothing = torch.tensor(indices(Words()), device=device).expand(count, -1)
    text = embeddings(torch.cat([numbers, nothing]))
    levels = torch.linspace(1, 0, _STEPS + 1, device=device)
    levels = FLOW_SHIFT * levels / (1 + (FLOW_SHIFT - 1) * levels)
    for level, following in pairwise(levels):
        timestep = (level * TRAIN_STEPS).expand(2 * count)
        velocity = transformer(torch.cat([latents] * 2), timestep, text, return_dict=False)[0].float()
        asked, unasked = velocity.chunk(2)
        latents = latents + (following - level) * (unasked + _GUIDANCE * (asked - unasked))
    return latents
