"""Training of the autoencoder: to show again what it was shown, through latents that are about normal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from ..architecture import new_autoencoder
from ..clips import FRAMES, HEIGHT, WIDTH, draw, random_scenes
from . import gpus
from .optimizer import Optimizer
from .whole_clip import decode, encode

_CROP = 128
_RATES = (3e-3, 2e-3)
_FALLING = 0.5
# Against an L1 error of one: that of edges, and the latents' distance from normal.
_EDGES, _NORMALITY = 0.5, 1e-4


class Stage(NamedTuple):
    """A part of the training.

    Attributes:
        share: of all steps.
        batch: crops at a time.
        frames: of a crop.
    """

    share: float
    batch: int
    frames: int


# Single frames first: they are cheap, and convolutions over three frames start from what is learned there.
STAGES = (Stage(0.35, 384, 1), Stage(0.5, 32, 17), Stage(0.15, 16, FRAMES))


def train_autoencoder(steps: int, seed: int, losses: list[torch.Tensor]) -> Any:
    """Train an autoencoder on the GPU.

    Args:
        steps: how many.
        seed: of the weights and of what is shown.
        losses: takes the loss of every step.

    Returns:
        The ``AutoencoderKLWan``; its latents are not yet scaled as Wan's are.
    """
    torch.manual_seed(seed)
    autoencoder = new_autoencoder().to(gpus.device())
    optimizer = Optimizer(autoencoder, _is_inner, rates=_RATES, steps=steps, falling=_FALLING)
    progress = tqdm(_crops(steps, gpus.generator(seed)), "autoencoder", steps, disable=gpus.rank() > 0)
    for crops in progress:
        loss = _loss(autoencoder, crops)
        optimizer.step(loss)
        losses.append(loss.detach())
        if len(losses) % 100 == 0:
            progress.set_postfix(loss=f"{torch.stack(losses[-100:]).mean():.4f}")
    return autoencoder


@torch.no_grad()
def peak_signal_to_noise(autoencoder: Any, clips: torch.Tensor) -> float:
    """How well clips, as in ``encode``, are shown again, in decibels."""
    with gpus.half_precision():
        again = decode(autoencoder, encode(autoencoder, clips)[0]).float().clamp(-1, 1)
    return float(10 * torch.log10(4 / (again - clips).square().mean()))


def _is_inner(name: str, parameter: torch.nn.Parameter) -> bool:
    # Neither convolutions in time alone, of which a clip of one frame sees a third, nor those to and from colours.
    outer = ("time_conv", "encoder.conv_in", "decoder.conv_out")
    return parameter.ndim >= 4 and not any(part in name for part in outer)


def _crops(steps: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    for stage in STAGES:
        for _ in range(round(stage.share * steps)):
            count = gpus.share(stage.batch)
            sizes = ((FRAMES, stage.frames), (HEIGHT, _CROP), (WIDTH, _CROP))
            windows = [_window(*size, count, generator) for size in sizes]
            yield draw(random_scenes(count, generator), *windows)


def _window(size: int, part: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Numbers of ``part`` neighbours of ``size``, from a random one on, ``[count, part]``."""
    device = generator.device
    start = torch.randint(size - part + 1, (count, 1), generator=generator, device=device)
    return start + torch.arange(part, device=device)


def _loss(autoencoder: Any, crops: torch.Tensor) -> torch.Tensor:
    with gpus.half_precision():
        mean, log_variance = encode(autoencoder, crops)
        latents = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        again = decode(autoencoder, latents)
    error = again.float() - crops
    edges = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
    mean, log_variance = mean.float(), log_variance.float()
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
    return error.abs().mean() + _EDGES * edges + _NORMALITY * divergence
