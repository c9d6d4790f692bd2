"""One forward of the model: what is known before its first attention call, and what becomes of each."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch

from ...ops.modes import wants_gradients
from ...settings.at_step import Steps
from ..layout import Layout
from ..place import Place
from ..prompts import Prompts
from ..reasons import COMFYUI, EXPECTED, PART_OF_QUERIES, UNKNOWN_MODEL, UNREADABLE, Request, first_reason
from ..run import Run
from .attention_name import attention_name
from .model_sparse_attention import LEFT_TO_IT, beneath, is_model_sparse_attention
from .models import WITHIN_PROMPT, Inputs, VideoModel

Override = Callable[..., torch.Tensor]


class _Call(NamedTuple):
    """One attention call with tensors as ``[B, H, L, D]`` views."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    keep_heads: bool
    options: dict[str, Any]
    request: Request


@dataclass
class Forward:
    """What is known before the first attention call of a forward.

    Attributes:
        run: settings and report of the sampler call.
        model: the video model; None leaves every call dense.
        step, steps: step of the whole denoising, and how many it has.
        in_window: whether the schedule's window has the noise level.
        window_steps: as in :class:`~psa_core.hosts.place.Place`.
        inputs: what it is given.
        leading: reference frames of the grid before the clip; None when unknown.
        device: that the model runs on.
        prompts: that the batch consists of.
        previous: the override that would have run without the pack, or None for the model's own attention.
        replica: as in :class:`~psa_core.hosts.place.Place`.
        options: ComfyUI's ``transformer_options`` of this forward.
        calls: the video's self-attention calls so far by their queries, which number the layers of models that do not.
        calls_by_layer: the same by layer, of which VACE's blocks and the model's own share one, and by their queries.
        reached: whether there was an attention call at all, beside those within the prompt.
    """

    run: Run
    model: VideoModel | None
    step: int
    steps: int
    in_window: bool
    window_steps: Steps
    inputs: Inputs
    leading: int | None
    device: torch.device
    prompts: Prompts
    previous: Override | None
    replica: Hashable = None
    options: dict[str, Any] = field(default_factory=dict)
    calls: Counter[int] = field(default_factory=Counter)
    calls_by_layer: Counter[tuple[int, int]] = field(default_factory=Counter)
    reached: bool = False

    def attend(self, func: Override, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Run one call, sparse or as it would have run without the pack; arguments as ComfyUI's overrides take them."""
        if self.model is None:
            self.reached = True
            return self._dense(UNKNOWN_MODEL, False, None, func, args, kwargs)
        call = _read_or_none(args, kwargs)
        if call is None:
            self.reached = True
            return self._dense(UNREADABLE, False, None, func, args, kwargs)
        layout = self.model.layout(self.inputs, call.request, call.options)
        q_tokens, k_tokens = call.request.q_tokens, call.request.k_tokens
        other = self.model.other(self.inputs, call.request, layout, call.options)
        if not other and layout.has_part_of(q_tokens, k_tokens):
            other = PART_OF_QUERIES
        # Of models that refine their prompt, other nodes replace the blocks behind that.
        self.reached |= other != WITHIN_PROMPT
        is_self = q_tokens == k_tokens
        # Layers are numbered by the video's own calls alone, whatever else there is in a block.
        is_video = (is_self or layout.in_parts) and not other
        place = self._place(call, layout, self.model, is_video)
        request = call.request._replace(prompts=self.model.prompts(self.inputs), other=other, part=layout.in_parts)
        other_kind = first_reason(COMFYUI, request)
        reason = other_kind or self.run.dense_reason(call.q, call.k, place)
        if reason is not None:
            layer = place.layer if is_video else None
            return self._dense(reason, is_self, layer, func, args, kwargs, None if other_kind else call)
        return _as_asked(self.run.attend(call.q, call.k, call.v, place), call)

    def _dense(
        self,
        reason: str,
        is_self: bool,
        layer: int | None,
        func: Override,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        call: _Call | None = None,
    ) -> torch.Tensor:
        """Run a call that stays dense; ``call`` is it where it is one that PSA computes."""
        previous = self.previous
        # It takes no call of another kind.
        if is_model_sparse_attention(previous) and is_self:
            if reason in EXPECTED:
                # Dense is what the settings ask for here, and it would not be.
                previous = beneath(previous)
            else:
                reason += LEFT_TO_IT
        with self.run.report.dense_call(reason, self.device, self.step, layer):
            if call is not None:
                set_aside = "" if self.previous is None else attention_name(self.previous)
                out = self.run.attend_dense(call.q, call.k, call.v, reason, set_aside)
                if out is not None:
                    return _as_asked(out, call)
            return func(*args, **kwargs) if previous is None else previous(func, *args, **kwargs)

    def _place(self, call: _Call, layout: Layout, model: VideoModel, is_video: bool) -> Place:
        queries = call.request.q_tokens
        layer = model.layer(self.calls[queries] // layout.parts, call.options, self.inputs)
        kind = layer, queries
        nth = self.calls_by_layer[kind]
        if is_video:
            self.calls[queries] += 1
            self.calls_by_layer[kind] += 1
        leading = self.leading if layout.leading is None else layout.leading
        references = None if leading is None else (leading, layout.trailing)
        # Parts are windows: they share recipes, and each has a level map of its own.
        condition, window = ("part", (self._window, nth)) if layout.in_parts else (nth, self._window)
        return Place(
            self.step, layer, layout.grid, layout.sinks, self.steps, model.frames_per_token, self.in_window,
            references, condition=(self.prompts.condition, condition), conditions=self.prompts.conditions,
            window=window, others=layout.others, grid_optional=model.grid_optional or layout.in_parts,
            in_parts=layout.in_parts, replica=self.replica, window_steps=self.window_steps,
        )  # fmt: skip

    @cached_property
    def _window(self) -> Hashable:
        """The frames of a context window; None outside of one."""
        frames = getattr(self.options.get("context_window"), "index_list", None)
        return None if frames is None else tuple(frames)


def _as_asked(out: torch.Tensor, call: _Call) -> torch.Tensor:
    """``[B, H, L, D]`` in the shape that a call wants."""
    return out if call.keep_heads else out.transpose(1, 2).flatten(2)


# ComfyUI runs the forwards of several GPUs in threads.
_thread = threading.local()


def forward_under_way() -> Forward | None:
    """The forward that this thread is in; None outside of one."""
    forward: Forward | None = getattr(_thread, "forward", None)
    return forward


@contextmanager
def under_way(forward: Forward) -> Iterator[None]:
    """Make a forward the one that this thread is in.

    Graphs that ``torch.compile`` makes meanwhile are for such forwards alone. ComfyUI's compile nodes drop the guards
    on ``transformer_options``: without more, some blocks would go on in their graphs from before the patch, and after
    it what runs behind a break in a graph would ask the options for keys of the patch's. So such forwards differ in a
    state that is guarded, autocast's: its cache is off, which without gradients holds nothing.
    """
    outer, keeps_casts = forward_under_way(), torch.is_autocast_cache_enabled()
    _thread.forward = forward
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(keeps_casts)
        _thread.forward = outer


def _read_or_none(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
    """A call as far as it can be read: other packs' models may have arguments of their own."""
    try:
        call = _read(*args, **kwargs)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return None
    return call if call.q.ndim == call.k.ndim == call.v.ndim == 4 else None


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
        mask=mask,
        scale=kwargs.get("scale"),
        grouped=bool(kwargs.get("enable_gqa")) or q.shape[1] != k.shape[1],
        odd_values=k.shape != v.shape,
        full_precision=kwargs.get("low_precision_attention") is False,
        gradients=wants_gradients(q, k, v),
        dtypes=(q.dtype, k.dtype, v.dtype),
    )
    return _Call(q, k, v, skip_output_reshape, kwargs.get("transformer_options") or {}, request)
