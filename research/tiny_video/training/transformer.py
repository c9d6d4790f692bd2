"""Training of the transformer: flow matching on latents, single frames first and then whole clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from tqdm import tqdm

from psa_core.models.tiny_video.files import FLOW_SHIFT
from psa_core.models.tiny_video.vocabulary import TEXT_DIM, Words, indices

from ..architecture import new_transformer
from . import gpus
from .latents import Bank
from .optimizer import Optimizer

_RATES = (2e-3, 1e-3)
_FALLING = 0.45
_DROPPED = 0.1
_AVERAGE = 0.998
TRAIN_STEPS = 1000


class Stage(NamedTuple):
    """A part of the training.

    Attributes:
        share: of all steps.
        batch: clips at a time.
        frames: of a clip's latents, from its first on.
    """

    share: float
    batch: int
    frames: int


# Single frames first: colours and shapes are learned there, at a third of the price.
STAGES = (Stage(0.17, 256, 1), Stage(0.83, 48, 9))


def train_transformer(
    bank: Bank, steps: int, seed: int, losses: list[torch.Tensor], start: dict[str, torch.Tensor] | None = None
) -> Any:
    """Train a transformer on the GPU.

    Args:
        bank: what it learns from.
        steps: how many.
        seed: of the weights, and of noise.
        losses: takes the loss of every step.
        start: weights to go on from, with whole clips alone; None for random ones.

    Returns:
        The ``WanTransformer3DModel``, with the mean of its weights over the last steps.
    """
    torch.manual_seed(seed)
    transformer = new_transformer().to(gpus.device())
    if start is not None:
        transformer.load_state_dict(start)
    transformer.compile_repeated_blocks(dynamic=False)
    optimizer = Optimizer(transformer, _is_inner, rates=_RATES, steps=steps, falling=_FALLING)
    parameters = list(transformer.parameters())
    average = [x.detach().clone() for x in parameters]
    generator = gpus.generator(seed)
    stages = STAGES if start is None else (STAGES[-1]._replace(share=1.0),)
    progress = tqdm(_batches(bank, stages, steps, generator), "transformer", steps, disable=gpus.rank() > 0)
    for clean, words in progress:
        loss = _loss(transformer, clean, words, generator)
        optimizer.step(loss)
        torch._foreach_lerp_(average, [x.detach() for x in parameters], 1 - _AVERAGE)
        losses.append(loss.detach())
        if len(losses) % 100 == 0:
            progress.set_postfix(loss=f"{torch.stack(losses[-100:]).mean():.4f}")
    for parameter, mean in zip(parameters, average, strict=True):
        parameter.data.copy_(mean)
    return transformer


def embeddings(words: torch.Tensor) -> torch.Tensor:
    """Embeddings ``[n, 8, 64]`` of numbers of words ``[n, 8]``, as in ``vocabulary.embed``."""
    return functional.one_hot(words, TEXT_DIM).float() * TEXT_DIM**0.5


def _is_inner(name: str, parameter: torch.nn.Parameter) -> bool:
    return name.startswith("blocks.") and parameter.ndim == 2


def _batches(
    bank: Bank, stages: Sequence[Stage], steps: int, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    nothing = torch.tensor(indices(Words()), device=gpus.device())
    for stage in stages:
        for _ in range(round(stage.share * steps)):
            bank.refresh()
            clean, words = bank.draw(gpus.share(stage.batch), stage.frames, generator)
            # For classifier-free guidance.
            dropped = torch.rand(len(words), 1, generator=generator, device=gpus.device()) < _DROPPED
            yield clean, torch.where(dropped, nothing, words)


def _loss(transformer: Any, clean: torch.Tensor, words: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The error of the velocity from clean latents to noise."""
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    level = torch.sigmoid(torch.randn(len(clean), generator=generator, device=clean.device))
    level = FLOW_SHIFT * level / (1 + (FLOW_SHIFT - 1) * level)
    mixed = torch.lerp(clean, noise, level[:, None, None, None, None])
    with gpus.half_precision():
        velocity = transformer(mixed, level * TRAIN_STEPS, embeddings(words), return_dict=False)[0]
    return functional.mse_loss(velocity.float(), noise - clean)
