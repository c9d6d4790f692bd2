"""Why an attention call stays dense: every reason there is, in the order in which they are asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch

from ..ops.backends import choose_backend_for, triton_refusal
from ..settings.at_step import DensePlaces, dense_places, is_full_resolution
from ..settings.config import PSAConfig
from ..settings.errors import ConfigError
from ..settings.radial import RadialMask
from ..settings.scenes import check_scenes
from ..settings.sizes import HEAD_SIZES
from .mask import masks_something
from .place import Place


class Reason(NamedTuple):
    """One reason.

    Attributes:
        text: a few words for a user, or what makes them of the call.
        holds: call -> whether it stays dense for this reason; asked when no reason before it holds.
        expected: the settings ask for it, so it is no news.
    """

    text: str | Callable[[Any], str]
    holds: Callable[[Any], bool]
    expected: bool = False


class Request(NamedTuple):
    """What a model asks of one call of attention; its host fills in what such models can ask for.

    Attributes:
        q_tokens, k_tokens, head_dim: of the call.
        mask: added to logits, or which pairs there are; None for all.
        causal, dropout: whether there is any of it.
        odd_values: whether values have other sizes than keys.
        grouped: whether several heads of queries share one of keys.
        scale: of the logits; None for the usual one.
        full_precision: whether nothing may be less exact than the model's own attention.
        gradients: whether autograd records the call.
        training: whether the model is being trained, so that autograd may go through the call later.
        dtypes: of queries, keys and values.
        part: whether queries are a part of the video's, and keys all that it looks at.
        prompts: how many tokens the prompts have that the model attends to in other calls.
        other: what it is, where that is not plain self-attention, in ComfyUI the video's; "" where nothing speaks for
            that.
    """

    q_tokens: int
    k_tokens: int
    head_dim: int
    mask: torch.Tensor | None = None
    causal: bool = False
    dropout: bool = False
    odd_values: bool = False
    grouped: bool = False
    scale: float | None = None
    full_precision: bool = False
    gradients: bool = False
    training: bool = False
    dtypes: tuple[torch.dtype, ...] = ()
    part: bool = False
    prompts: tuple[int, ...] = ()
    other: str = ""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Call:
    """One call within a run; attributes as in :class:`~psa_core.hosts.run.Run`, of its queries and of its place.

    Attributes:
        before_trial: called before the kernels are asked for, which may have to be tried out.
    """

    config: PSAConfig
    backend: str
    place: Place
    q_tokens: int
    k_tokens: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    before_trial: Callable[[], None] = _nothing

    @cached_property
    def dense_places(self) -> DensePlaces:
        return dense_places(self.config, self.place.steps)

    @cached_property
    def refusal(self) -> str | None:
        """Why the kernels cannot take the call where they are left the choice; where they are not, it is an error."""
        self.before_trial()
        facts = self.device, self.dtype, self.head_dim
        if self.backend == "auto":
            return triton_refusal(*facts)
        choose_backend_for(self.backend, *facts)
        return None


def first_reason(reasons: Iterable[Reason], call: Request | Call) -> str | None:
    """The text of the first reason that holds; None when none does."""
    for text, holds, _ in reasons:
        if holds(call):
            return text if isinstance(text, str) else text(call)
    return None


def _has_scenes(radial: RadialMask | None) -> bool:
    return radial is not None and bool(radial.scene_boundaries)


def check_frames(radial: RadialMask | None, frames: int, frames_per_token: int) -> None:
    """See that the scenes of a mask fit so many frames of tokens.

    Raises:
        ConfigError: they do not; the message names the number.
    """
    if radial is not None and _has_scenes(radial):
        check_scenes(radial.scene_boundaries, radial.scene_adjacency, frames, frames_per_token)


# Asked on every attention call.
@lru_cache(maxsize=64)
def _scenes_fit(radial: RadialMask | None, frames: int, frames_per_token: int) -> bool:
    try:
        check_frames(radial, frames, frames_per_token)
    except ConfigError:
        return False
    return True


# Known before there is a call that could be described.
UNKNOWN_MODEL = "not a Wan or CogVideoX model: unknown_models = video takes others too"
UNREADABLE = "a call in a form of the model's own"
CONTEXT_PARALLELISM = "context parallelism"
RING = "ring attention, where no GPU has the whole sequence (Ulysses runs sparse)"
GRADIENTS = "gradients are on (torch.no_grad turns them off)"
NO_TORCH_ATTENTION = "no call of torch's attention in the layer"
PART_OF_QUERIES = "a part of the video's queries, as where several GPUs share them"
OWN_SPARSE_ATTENTION = "sparse attention of the model's own"
MASKED = "attention mask"

CROSS_ATTENTION = "cross-attention"
_CROSS = Reason(CROSS_ATTENTION, lambda request: request.q_tokens != request.k_tokens and not request.part)
# Of language models: a few tokens behind all that the cache holds.
DECODING = "decoding"
_MASK = Reason(MASKED, lambda request: request.mask is not None and masks_something(request.mask))
_GRADIENTS = Reason(GRADIENTS, lambda request: request.gradients)
_MIXED = Reason(
    lambda request: f"q, k and v of different dtypes ({', '.join(map(str, request.dtypes))})",
    lambda request: len(set(request.dtypes)) > 1,
)

# What PSA does not compute, by what models of each host can ask for.
COMFYUI = (
    Reason(lambda request: request.other, lambda request: bool(request.other)),
    _CROSS,
    Reason(lambda request: f"head size {request.head_dim}", lambda request: request.head_dim not in HEAD_SIZES),
    # Same lengths on both sides: nothing in the call tells self-attention from attention to the prompt.
    Reason(
        lambda request: f"video and prompt both have {request.q_tokens} tokens",
        lambda request: request.q_tokens in request.prompts,
    ),
    Reason("scale of the model's own", lambda request: request.scale is not None),
    Reason("grouped-query attention", lambda request: request.grouped),
    Reason("values of another size than keys", lambda request: request.odd_values),
    Reason("full precision asked for by the model", lambda request: request.full_precision),
    _GRADIENTS,
    _MIXED,
    # The last, because it may have to look at the mask.
    _MASK,
)
DIFFUSERS = (
    Reason(
        "causal attention, dropout or grouped heads",
        lambda request: request.causal or request.dropout or request.grouped,
    ),
    Reason("attention scale", lambda request: request.scale not in (None, request.head_dim**-0.5)),
    _GRADIENTS,
    _MIXED,
)
TRANSFORMERS = (
    Reason(lambda request: request.other, lambda request: bool(request.other)),
    Reason(MASKED, lambda request: request.mask is not None),
    Reason("dropout", lambda request: request.dropout),
    Reason("attention scale", lambda request: request.scale not in (None, request.head_dim**-0.5)),
    Reason("values of another size than keys", lambda request: request.odd_values),
    _GRADIENTS,
    # Gradient checkpoints run forward passes without gradients first, and once more with them.
    Reason("training mode (model.eval() ends it)", lambda request: request.training),
    _MIXED,
)

# By step and layer alone.
PLACES = (
    Reason("warm-up", lambda call: call.place.step < call.dense_places.start, expected=True),
    Reason("last steps", lambda call: call.place.step >= call.dense_places.stop, expected=True),
    Reason("outside the schedule's window", lambda call: not call.place.in_window, expected=True),
    Reason("dense layer", lambda call: call.dense_places.has_layer(call.place.layer), expected=True),
    # The model's own attention does it faster.
    Reason(
        "full-resolution step",
        lambda call: is_full_resolution(call.config, call.place.step, call.place.steps),
        expected=True,
    ),
)


def _not_the_grid(call: Call) -> str:
    assert call.place.grid is not None
    size = " x ".join(map(str, call.place.grid))
    beside = (call.place.tokens or 0) - math.prod(call.place.grid)
    return f"{call.q_tokens} tokens are not the grid {size} plus {beside} of text"


def _needs_grid(call: Call) -> bool:
    """Whether all that the settings say is a mask, of which nothing is known without the grid.

    A mask that is one rule of several is left out where there is no grid at all, not where the grid is in parts.
    """
    radial = call.config.radial
    return call.place.grid is None and radial is not None and (radial.decides_alone or call.place.in_parts)


RUN = (
    Reason(
        CROSS_ATTENTION,
        lambda call: call.q_tokens != call.k_tokens and not (call.place.causal or call.place.in_parts),
    ),
    Reason("the preset is dense", lambda call: call.config.type == "dense", expected=True),
    Reason("video grid unknown", lambda call: call.place.grid is None and not call.place.grid_optional),
    Reason("a mask, and the video's grid is unknown", _needs_grid),
    Reason(_not_the_grid, lambda call: call.place.tokens not in (None, call.q_tokens)),
    Reason(
        lambda call: f"{call.k_tokens} tokens are fewer than min_tokens = {call.config.min_tokens}",
        lambda call: call.k_tokens < call.config.min_tokens,
    ),
    # Before warm-up: that a backend which is insisted on cannot run is said at the first call.
    Reason(lambda call: call.refusal, lambda call: call.refusal is not None),
    *PLACES,
    # Scenes are places in the whole clip, and a part of it does not say which part it is.
    Reason(
        "scenes in a clip with an unknown number of reference frames",
        lambda call: call.place.reference_frames is None and _has_scenes(call.config.radial),
    ),
    Reason(
        lambda call: f"the scenes do not fit a window of {call.place.clip_frames} token frames",
        lambda call: (
            call.place.grid is not None
            and not _scenes_fit(call.config.radial, call.place.clip_frames, call.place.frames_per_token)
        ),
    ),
)

EXPECTED = frozenset([DECODING, *(reason.text for reason in RUN if reason.expected)])
