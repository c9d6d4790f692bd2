"""The heads that errors are measured on: of the bundled model at several steps of a clip, and the synthetic mix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from psa_core.apps.bench.cases import Case
from psa_core.apps.bench.inputs import Inputs, video_inputs

from ..study.capture import PROMPTS, SMALL, Call, Clip, calls_of

# Rows of one head's logits that stand in memory at once.
_ROWS = 4096


class Heads(NamedTuple):
    """Heads of attention at one step or several.

    Attributes:
        steps: q, k and v ``[1, H, L, D]``: first of the step in which recipes are chosen, then of those that come after
            it, one after another but for the last. A single one is both.
        exact: dense attention of each of them, float32 ``[1, H, L, D]``.
    """

    case: Case
    steps: list[Inputs]
    exact: list[torch.Tensor]

    @classmethod
    def of(cls, case: Case, steps: list[Inputs]) -> Heads:
        """With their dense attention."""
        return cls(case, steps, [exact_attention(inputs) for inputs in steps])

    @property
    def later(self) -> range:
        """Numbers of the steps that chosen recipes are applied to."""
        return range(1, len(self.steps)) if len(self.steps) > 1 else range(1)

    @property
    def on_gpu(self) -> bool:
        """Whether times mean something."""
        return self.steps[0].q.is_cuda

    def errors(self, out: torch.Tensor, step: int) -> torch.Tensor:
        """Relative error of norms of each head's whole output in a step, ``[H]``."""
        exact = self.exact[step][0]
        difference, whole = (torch.linalg.vector_norm(x, dim=(1, 2)) for x in (out[0].float() - exact, exact))
        return difference / whole


@dataclass(frozen=True)
class Source:
    """Where heads come from.

    Attributes:
        case: with their number and size.
        make: from the device, their inputs at each step.
        trained: whether they are of a trained model.
    """

    case: Case
    make: Callable[[torch.device], list[Inputs]]
    trained: bool

    @property
    def name(self) -> str:
        return self.case.name

    def heads(self, device: torch.device) -> Heads:
        """On this device; in float32 on a CPU, in bfloat16 elsewhere."""
        return Heads.of(self.case, self.make(device))


@dataclass(frozen=True)
class Denoising:
    """Which calls of a dense denoising are looked at.

    Attributes:
        clip: its size.
        prompts: one clip each; their heads stand side by side.
        layers: whose heads.
        steps: of the whole denoising.
        chosen: the step in which recipes are chosen.
        later: those that they are applied to.
    """

    clip: Clip = SMALL
    prompts: tuple[str, ...] = PROMPTS
    layers: tuple[int, ...] = tuple(range(12))
    steps: int = 20
    chosen: int = 6
    later: tuple[int, ...] = (7, 8, 9, 15)

    @property
    def heads(self) -> int:
        return 2 * len(self.layers) * len(self.prompts)

    def capture(self, device: torch.device) -> list[Inputs]:
        """The heads of all prompts and layers as those of one call, step by step."""
        from psa_core.models.tiny_video.model import load_pipeline

        pipeline = load_pipeline(dtype_on(device)).to(device)
        wanted = (self.chosen, *self.later)
        calls = [
            call
            for prompt in self.prompts
            for call in calls_of(
                pipeline,
                prompt,
                self.clip,
                self.steps,
                lambda step, layer: step in wanted and layer in self.layers,
                max(wanted),
            )
        ]
        return [_side_by_side([call for call in calls if call.step == step]) for step in wanted]


def dtype_on(device: torch.device) -> torch.dtype:
    """What kernels take where there are kernels; plain torch is exact."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def trained(name: str, denoising: Denoising) -> Source:
    """Heads of the bundled model."""
    return Source(Case(name, denoising.heads, 128, denoising.clip.grid), denoising.capture, trained=True)


def synthetic(case: Case) -> Source:
    """The mix of sharp and diffuse heads that ``psa bench`` measures on."""
    return Source(case, lambda device: [video_inputs(case, device, dtype_on(device))], trained=False)


def exact_attention(inputs: Inputs) -> torch.Tensor:
    """Dense attention in float32, head by head and some rows at a time."""
    out = torch.empty(inputs.q.shape, dtype=torch.float32, device=inputs.q.device)
    for h in range(out.shape[1]):
        q, k, v = (x[0, h].float() for x in inputs)
        for rows, into in zip(q.split(_ROWS), out[0, h].split(_ROWS), strict=True):
            into.copy_((rows @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v)
    return out


def _side_by_side(calls: list[Call]) -> Inputs:
    # As models give them: heads inside tokens.
    return Inputs(*(torch.cat(parts, 1).transpose(1, 2).contiguous().transpose(1, 2) for parts in _tensors(calls)))


def _tensors(calls: list[Call]) -> list[tuple[torch.Tensor, ...]]:
    return list(zip(*(call[:3] for call in calls), strict=True))


TRAINED_SMALL = trained("tiny model, 320 x 384", Denoising())
TRAINED_LARGE = trained("tiny model, 960 x 1152", Denoising(Clip(960, 1152)))
SYNTHETIC = synthetic(Case("synthetic mix", 12, 128, (18, 45, 80)))
SOURCES = (TRAINED_SMALL, TRAINED_LARGE, SYNTHETIC)

# What a CPU can do.
_FEW = Denoising(prompts=PROMPTS[:1], layers=(1, 4, 7, 10), steps=10, chosen=2, later=(3, 4, 5))
QUICK_SOURCES = (trained(TRAINED_SMALL.name, _FEW), synthetic(Case(SYNTHETIC.name, 4, 128, (9, 20, 24))))
