"""Queries, keys and values of a trained model while it makes clips with dense attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from psa_core.settings.sizes import Grid

PROMPTS = ("a red circle moving left over gray stripes", "a blue star turning and a green square over navy checks")
STEPS = 10
# Early, middle and late.
CAPTURED_STEPS = (1, 5, 8)
# Pixels and video frames behind a token.
_PIXELS, _FRAMES = 16, 4


class Clip(NamedTuple):
    """The size of a clip, in pixels and frames."""

    height: int
    width: int
    frames: int = 33

    @property
    def grid(self) -> Grid:
        """In tokens: frames, height, width."""
        return 1 + (self.frames - 1) // _FRAMES, self.height // _PIXELS, self.width // _PIXELS


# Of the training: 4,320 tokens.
SMALL = Clip(320, 384)
GRID = SMALL.grid


class Call(NamedTuple):
    """One self-attention call, ``[1, 2, tokens, 128]``, and what dense attention makes of it."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    dense: torch.Tensor
    step: int
    layer: int


def capture_calls() -> list[Call]:
    """A quarter of the calls at the captured steps: 18, with every layer, every step and both prompts among them."""
    from psa_core.models.tiny_video.model import load_pipeline

    pipeline = load_pipeline()

    def wanted(number: int, step: int, layer: int) -> bool:
        turn = CAPTURED_STEPS.index(step) if step in CAPTURED_STEPS else None
        return turn is not None and (number + turn + layer) % 2 == 0 and (turn + layer // 2) % 2 == 0

    return [
        call
        for number, prompt in enumerate(PROMPTS)
        for call in calls_of(pipeline, prompt, SMALL, STEPS, partial(wanted, number))
    ]


def calls_of(
    pipeline: Any, prompt: str, clip: Clip, steps: int, wanted: Callable[[int, int], bool], last: int | None = None
) -> list[Call]:
    """Calls of a dense denoising without guidance, in the model's precision.

    Args:
        pipeline: of :func:`psa_core.models.tiny_video.model.load_pipeline`.
        wanted: tells of a step and a layer whether to keep their call.
        last: the step after which to stop; None for all steps.
    """
    pipeline.set_progress_bar_config(disable=True)

    def stop(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipeline._interrupt = step == last
        return tensors

    with _Catch(len(pipeline.transformer.blocks), wanted) as catch:
        pipeline(
            prompt=prompt,
            width=clip.width,
            height=clip.height,
            num_frames=clip.frames,
            num_inference_steps=steps,
            guidance_scale=1.0,
            output_type="latent",
            # On the CPU, so that every machine has the same noise.
            generator=torch.Generator().manual_seed(0),
            callback_on_step_end=stop,
        )
    return catch.calls


class _Catch(TorchFunctionMode):
    """Keeps the self-attention calls that are wanted, and changes none."""

    def __init__(self, layers: int, wanted: Callable[[int, int], bool]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._layers, self._wanted = layers, wanted
        self._count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is scaled_dot_product_attention:
            q, k, v = args[:3] if len(args) >= 3 else (kwargs[name] for name in ("query", "key", "value"))
            # Keys of cross-attention are the prompt's, and fewer.
            if q.shape == k.shape:
                self._keep(q, k, v, out)
        return out

    def _keep(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
        step, layer = divmod(self._count, self._layers)
        self._count += 1
        if self._wanted(step, layer):
            self.calls.append(Call(q.clone(), k.clone(), v.clone(), out.clone(), step, layer))
