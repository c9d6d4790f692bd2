"""What a user may set of the radial mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .amount import Amount, read_amount
from .errors import ConfigError
from .scenes import FRAMES_PER_TOKEN, adjacency_matrix, read_adjacency, read_boundaries
from .validation import check_choice, check_whole

MASK_RULES = ("wan", "cogvideox")
SPARSITY_TYPES = ("radial", "dense")
RADIAL_MODES = ("radial only", "intersect", "finer wins", "coarsen")
MODEL_TYPES = ("auto", *MASK_RULES)
_MOST_FACTOR = 1e6


@dataclass(frozen=True, kw_only=True)
class RadialMask:
    """Settings of the radial mask (RadialAttention, arXiv 2506.19852) and of scenes, validated on construction.

    Under a mask tokens keep the order of the model, because its windows run along it.

    Attributes:
        mode: how the mask meets PSA. ``"radial only"``: the mask alone decides, nothing is chosen by content.
            ``"intersect"``: PSA chooses, and what the mask cuts is skipped. ``"finer wins"``: of both, the finer
            level. ``"coarsen"``: as ``"radial only"``, but what would be cut is pooled, by 2, 4 or 8 with the distance
            of frames.
        model_type: the rule for neighbouring frames, ``"wan"`` or ``"cogvideox"``; ``"auto"`` takes the latter where
            text stands in front of the video.
        decay_factor: scales the window of distant frames.
        block_size: least window in tokens, and the threshold below which frame pairs are thinned out.
        sparsity_type: ``"dense"`` switches the decay off, so that scenes alone decide.
        dense_layers: transformer blocks, counted from the first, that stay dense.
        dense_timesteps, last_dense_timesteps: denoising steps at the start and at the end that stay dense, each as a
            number or as a share of all steps (``"25%"``, rounded up).
        scene_boundaries: first frame of every scene and the end of the last: n + 1 numbers for n scenes, as a sequence
            or as text (``"0, 15, 30, 45"``). Empty for no scenes.
        scene_adjacency: which scenes see which: ``"neighbours"``, ``"all"``, ``"own"`` or a matrix whose row i says
            what scene i sees, nested or as text (``"1 1 0; 1 1 1; 0 1 1"``).
        use_sage_attention: another name of ``precision="auto"`` (:class:`PSAConfig`).
        frames_per_token: video frames behind a frame of tokens, in which boundaries are counted; 1 counts in frames
            of tokens. Hosts set it.
        reference_frames: how many frames of tokens before and after the clip hold pictures that the model looks at,
            such as VACE's reference. They see and are seen by all, and boundaries do not count them. Hosts set it.

    Raises:
        ConfigError: a setting is not allowed; the message names the key, the value and what is allowed.
    """

    mode: str = "radial only"
    model_type: str = "auto"
    decay_factor: float = 1.0
    block_size: int = 128
    sparsity_type: str = "radial"
    dense_layers: int = 0
    dense_timesteps: Amount = 0
    last_dense_timesteps: Amount = 0
    scene_boundaries: str | Sequence[int] = ()
    scene_adjacency: str | Sequence[Sequence[bool]] = "neighbours"
    use_sage_attention: bool = False
    frames_per_token: int = 1
    reference_frames: Sequence[int] = (0, 0)

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, RADIAL_MODES)
        check_choice("model_type", self.model_type, MODEL_TYPES)
        check_choice("sparsity_type", self.sparsity_type, SPARSITY_TYPES)
        check_choice("use_sage_attention", self.use_sage_attention, (True, False))
        check_choice("frames_per_token", self.frames_per_token, FRAMES_PER_TOKEN)
        check_whole("block_size", self.block_size, 1)
        check_whole("dense_layers", self.dense_layers, 0)
        check_factor(self.decay_factor)
        check_references(self.reference_frames)
        set_field = object.__setattr__
        for key in ("dense_timesteps", "last_dense_timesteps"):
            set_field(self, key, read_amount(key, getattr(self, key)))
        set_field(self, "decay_factor", float(self.decay_factor))
        set_field(self, "reference_frames", tuple(self.reference_frames))
        set_field(self, "scene_boundaries", read_boundaries(self.scene_boundaries))
        set_field(self, "scene_adjacency", read_adjacency(self.scene_adjacency))
        if self.scene_boundaries:
            adjacency_matrix(self.scene_adjacency, len(self.scene_boundaries) - 1)

    @property
    def decides_alone(self) -> bool:
        """Whether the mask is the whole level map, so that nothing needs to be known of queries and keys."""
        return self.mode in ("radial only", "coarsen")

    def replace(self, **changes: object) -> RadialMask:
        """A copy with some settings changed, validated again."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def check_references(frames: Any) -> None:
    """See that reference frames are two numbers of them.

    Raises:
        ConfigError: they are not.
    """
    if not isinstance(frames, (list, tuple)) or len(frames) != 2:
        raise ConfigError("reference_frames", frames, "must be two whole numbers: before the clip and after it")
    for count in frames:
        check_whole("reference_frames", count, 0)


def check_factor(factor: Any) -> None:
    """See that a decay factor is one.

    Raises:
        ConfigError: it is no number above 0.
    """
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor <= _MOST_FACTOR:
        raise ConfigError("decay_factor", factor, f"must be a number above 0, and at most {_MOST_FACTOR:g}")
