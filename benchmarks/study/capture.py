"""Queries, keys and values of a trained model while it makes clips with dense attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from psa_core.models.tiny_video.model import load_pipeline

PROMPTS = ("a red circle moving left over gray stripes", "a blue star turning and a green square over navy checks")
STEPS = 10
# Early, middle and late.
CAPTURED_STEPS = (1, 5, 8)
# Tokens of a clip of 33 x 320 x 384: frames, height, width.
GRID = (9, 20, 24)


class Call(NamedTuple):
    """One self-attention call, ``[1, 2, 4320, 128]`` in float32, and what dense attention makes of it."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    dense: torch.Tensor
    step: int
    layer: int


def capture_calls() -> list[Call]:
    """A quarter of the calls at the captured steps: 18, with every layer, every step and both prompts among them."""
    pipeline = load_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    calls: list[Call] = []
    for number, prompt in enumerate(PROMPTS):
        with _Catch(number, len(pipeline.transformer.blocks)) as catch:
            pipeline(
                prompt=prompt,
                width=384,
                height=320,
                num_frames=33,
                num_inference_steps=STEPS,
                guidance_scale=1.0,
                output_type="latent",
                generator=torch.Generator().manual_seed(0),
            )
        calls += catch.calls
    return calls


class _Catch(TorchFunctionMode):
    """Keeps the self-attention calls that are wanted, and changes none."""

    def __init__(self, prompt: int, layers: int) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._prompt, self._layers = prompt, layers
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
        if step not in CAPTURED_STEPS:
            return
        turn = CAPTURED_STEPS.index(step)
        if (self._prompt + turn + layer) % 2 == 0 and (turn + layer // 2) % 2 == 0:
            self.calls.append(Call(q.clone(), k.clone(), v.clone(), out.clone(), step, layer))
