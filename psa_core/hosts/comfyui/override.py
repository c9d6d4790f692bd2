"""The attention override of one forward: decides call by call, and hands on what stays dense untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ...settings.sizes import Grid
from ..place import Place
from ..reasons import COMFYUI, UNKNOWN_MODEL, Request, first_reason
from ..run import Run
from .models import VideoModel


@dataclass
class Forward:
    """What is known before the first attention call of a forward.

    Attributes:
        run: settings and report of the sampler call.
        model: the video model; None leaves every call dense.
        step, steps: step of the whole denoising, and how many it has.
        grid: (frames, height, width) in tokens, by the latent's shape; None when unknown.
        text_length, image_tokens: tokens of the conditioning, of the text and of a CLIP image.
        device: that the model runs on.
        calls: self-attention calls so far, which number the layers of models that do not.
    """

    run: Run
    model: VideoModel | None
    step: int
    steps: int
    grid: Grid | None
    text_length: int
    image_tokens: int
    device: torch.device
    calls: int = 0


class _Call(NamedTuple):
    """One attention call with tensors as ``[B, H, L, D]`` views."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    keep_heads: bool
    options: dict[str, Any]
    request: Request


class AttentionOverride:
    """``optimized_attention_override`` of one forward.

    ComfyUI looks for an attribute ``container_function`` on overrides; there must be none.

    Args:
        forward: the forward's facts.
        previous: the override that would have run without the pack, or None for the model's own attention.
    """

    def __init__(self, forward: Forward, previous: Callable[..., torch.Tensor] | None) -> None:
        self._forward = forward
        self._previous = previous

    # Compiled regions drop their guards on transformer_options, so a decision by step must not be traced into one.
    @torch.compiler.disable
    def __call__(self, func: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        forward = self._forward
        if forward.model is None:
            # Other models call with arguments of their own, which are not for us to read.
            return self._dense(UNKNOWN_MODEL, None, func, args, kwargs)
        call = _read(*args, **kwargs)
        place = self._place(call, forward.model)
        reason = self._dense_reason(call, place, forward.model)
        if reason is not None:
            layer = place.layer if call.q.shape[2] == call.k.shape[2] else None
            return self._dense(reason, layer, func, args, kwargs)
        out = forward.run.attend(call.q, call.k, call.v, place)
        return out if call.keep_heads else out.transpose(1, 2).flatten(2)

    def _dense(
        self,
        reason: str,
        layer: int | None,
        func: Callable[..., torch.Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> torch.Tensor:
        """Run what would have run without the pack."""
        forward = self._forward
        with forward.run.report.dense_call(reason, forward.device, forward.step, layer):
            return func(*args, **kwargs) if self._previous is None else self._previous(func, *args, **kwargs)

    def _place(self, call: _Call, model: VideoModel) -> Place:
        forward = self._forward
        layer = call.options.get("block_index", forward.calls)
        if call.q.shape[2] == call.k.shape[2]:
            forward.calls += 1
        grid, text_length = forward.grid, forward.text_length
        if model.kind == "wan":
            text_length = 0
            # The model's own word comes first: it knows of frames that were added to the latent.
            sizes = call.options.get("grid_sizes")
            grid = grid if sizes is None else (int(sizes[0]), int(sizes[1]), int(sizes[2]))
        return Place(forward.step, layer, grid, text_length, forward.steps, model.frames_per_token)

    def _dense_reason(self, call: _Call, place: Place, model: VideoModel) -> str | None:
        prompts = (self._forward.text_length, self._forward.image_tokens) if model.kind == "wan" else ()
        request = call.request._replace(prompts=prompts)
        return first_reason(COMFYUI, request) or self._forward.run.dense_reason(call.q, call.k, place)


def _read(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
    attn_precision: Any = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> _Call:
    """Read a call in the signature of ComfyUI's attention functions."""
    if not skip_reshape:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    request = Request(
        q.shape[2],
        k.shape[2],
        q.shape[3],
        mask=mask is not None,
        scale=kwargs.get("scale"),
        grouped=bool(kwargs.get("enable_gqa")) or q.shape[1] != k.shape[1],
        full_precision=kwargs.get("low_precision_attention") is False,
    )
    return _Call(q, k, v, skip_output_reshape, kwargs.get("transformer_options") or {}, request)
