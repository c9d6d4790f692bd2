"""One sampling run: what every host decides and records call by call."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from ..attention.call import pyramid_sparse_attention
from ..attention.steps import Attended
from ..ops.dense_backends import DenseCalls, RefusalError
from ..ops.grouped import group_of
from ..report.calibrated import Given
from ..report.report import Report
from ..settings.at_step import Steps, config_at, dense_places
from ..settings.calibration import Calibration
from ..settings.config import PSAConfig
from ..settings.sinks import video_start
from .given import given_to
from .kept import Kept, Result
from .kept_maps import MAP_MEMORY
from .place import Place
from .reasons import EXPECTED, RUN, Call, check_frames, first_reason
from .rehearsal import rehearse, rehearse_prompt

log = logging.getLogger(__name__)

_DENSE = PSAConfig(type="dense")
_TINY = torch.finfo(torch.float32).tiny


@dataclass
class Run:
    """Settings and report of one sampling run.

    Attributes:
        config: settings.
        backend: ``"auto"`` leaves calls dense that the kernels cannot take; ``"triton"`` and ``"torch"`` insist.
        measure_errors: run every sparse call dense as well, and report how far its output is from that.
        on_compile: called before kernels run for the first time in this process, which Triton compiles then.
        map_memory: GiB that level maps may take which are kept from step to step (``PSAConfig.map_steps``).
        calibrations: recipes that calibrated attention takes instead of measuring which, by expert; one that has none
            measures.
        end: the step in front of which it ends, where it is only a part of the denoising; None for all of it.
    """

    config: PSAConfig
    backend: str = "auto"
    report: Report = field(default_factory=Report)
    measure_errors: bool = False
    on_compile: Callable[[], None] | None = None
    map_memory: float = MAP_MEMORY
    calibrations: Mapping[int, Calibration] = field(default_factory=dict)
    end: int | None = None
    _kept: Kept = field(init=False, repr=False)
    _dense: DenseCalls | None = field(init=False, repr=False)
    _compiled: set[Hashable] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        name = self.config.dense_backend
        self._dense = None if name == "model" else DenseCalls(name)
        self.let_go()

    def let_go(self) -> None:
        """Let go of what is kept for later steps: there will be none."""
        self._kept = Kept(self.map_memory, self.calibrations, self.report.time_calibration)

    def dense_reason(self, q: torch.Tensor, k: torch.Tensor, place: Place) -> str | None:
        """Why this call stays dense, in a few words for a user; None when it runs sparse.

        Args:
            q, k: ``[B, H, L, D]``.

        Raises:
            BackendError: the backend is ``"triton"`` and the kernels cannot take q; said at the first call, also in
                warm-up, rather than many steps later.
        """
        tokens, head_dim = q.shape[2:]
        facts = (tokens, k.shape[2], head_dim, q.dtype, q.device)
        call = Call(self.config, self.backend, place, *facts, lambda: self._compile_once(q, k, place))
        return first_reason(RUN, call)

    def check_frames(self, frames: int, frames_per_token: int) -> None:
        """See, before sampling starts, that the scenes fit a clip.

        Args:
            frames: of the clip, in tokens, without reference frames.
            frames_per_token: as in :class:`Place`.

        Raises:
            ConfigError: they do not; the message names the number.
        """
        if self.config.type != "dense":
            check_frames(self.config.radial, frames, frames_per_token)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, place: Place) -> torch.Tensor:
        """Run one call sparse and record it. Shapes as in :func:`psa_core.pyramid_sparse_attention`.

        Of causal calls nothing is kept: a prompt is read once.
        """
        config = self._config_at(place.step, place)
        stops = dense_places(self.config, place.steps).stop, place.window_steps.stop, place.model_stop
        last = place.step + 1 >= min(*stops, math.inf if self.end is None else self.end)
        with self.report.time_sparse(q.device):
            if place.causal:
                result = self._read(q, k, v, config, place)
            else:
                result = self._kept.attend(q, k, v, config, place, self.backend, last)
        out, info = result.attended.out, result.attended.info()
        error = _relative_error(out, q, k, v, place.causal) if self.measure_errors else None
        self.report.add_sparse(
            place.step, place.layer, info.level_shares, info.levels, error, result.map_age, info.precision
        )
        if result.chosen is not None:
            recipes, of_head, errors, _ = result.chosen
            given = Given(recipes, of_head, errors, config.target_error, place.grid, video_start(place.sinks))
            call = place.replica, place.condition, len(q), *q.shape[2:]
            self.report.calibrated.give(place.expert, place.layer, call, given)
            self._remark_on_given(place, q.shape[1])
        if result.measured is not None:
            self.report.calibrated.add_measured(place.step, place.layer, result.measured)
        return out

    def _remark_on_given(self, place: Place, heads: int) -> None:
        """Say of heads that have chosen where there is a calibration why they had to."""
        calibration = self.calibrations.get(place.expert)
        if calibration is None or given_to(self.calibrations, place, heads) is not None:
            return
        # One for all layers.
        remark = "measured anew: the calibration has no recipes of some layers"
        if heads != calibration.heads:
            remark = (
                f"measured anew: attention calls have {heads} heads and the calibration {calibration.heads}; where "
                "GPUs share the heads of a model, nothing says which of them a call has"
            )
        if self.report.calibrated.add_remark(remark):
            log.warning("PSA: %s", remark)

    def _read(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig, place: Place) -> Result:
        """Run a causal call."""
        given = self.calibrations.get(place.expert)
        calibration = None if given is None else given.layer(place.layer)
        out, info = pyramid_sparse_attention(
            q, k, v, config, backend=self.backend, calibration=calibration, causal=True, return_info=True
        )
        return Result(Attended(out, lambda: info, None), chosen=info.choice)

    def attend_dense(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, reason: str, set_aside: str = ""
    ) -> torch.Tensor | None:
        """Run a call that stays dense in the settings' ``dense_backend``; None where the model's own attention is to.

        Args:
            q, k, v: ``[B, H, L, D]`` of unmasked self-attention.
            reason: why it stays dense; only where the settings ask for it they choose what runs it.
            set_aside: name of the attention that another node has set; "" for none.
        """
        if self._dense is None or reason not in EXPECTED:
            return None
        name = self.config.dense_backend
        try:
            out = self._dense.attend(q, k, v)
        except RefusalError as refused:
            if self.report.add_dense_refusal(name, str(refused)):
                log.warning("PSA: dense_backend %s leaves calls to the model's own attention: %s", name, refused)
            return None
        self.report.add_dense_backend(name, set_aside)
        return out

    def _config_at(self, step: int, place: Place) -> PSAConfig:
        references = place.reference_frames or (0, 0)
        return _config_of_call(self.config, step, place.steps, place.window_steps, place.frames_per_token, references)

    def _compile_once(self, q: torch.Tensor, k: torch.Tensor, place: Place) -> None:
        """Have the kernels of such calls compiled the first time in this process, before it is asked if they run here.

        In warm-up they are those of the first step after it.
        """
        kind = (q.device, q.dtype, q.shape[-1], place.causal, group_of(q, k))
        # Asked on every attention call, and what settings come to at a step takes microseconds.
        if (kind, place.step) in self._compiled:
            return
        self._compiled.add((kind, place.step))
        if self.backend == "torch" or q.device.type != "cuda":
            return
        config = self._config_at(max(place.step, dense_places(self.config, place.steps).start), place)
        kernels = kind, _kernels_of(config)
        if kernels in _begun:
            return
        _begun.add(kernels)
        if self.on_compile is not None:
            self.on_compile()
        if place.causal:
            rehearse_prompt(q, group_of(q, k), config, self.backend)
        else:
            rehearse(q, config, self.backend, bool(place.sinks))


# Kernels that have been called in this process, by what they are compiled for.
_begun: set[Hashable] = set()


def _kernels_of(config: PSAConfig) -> Hashable:
    """The settings for each of which there are other kernels."""
    choices = (config.mask_mode, config.importance, config.use_sim_mask, config.use_rearrange, config.precision)
    return config.block_m, config.block_n, max(config.levels), *choices


def _relative_error(out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """Norm of the difference to dense attention by the norm of that, 0-dim on the device, summed in float32."""
    # In the model's precision: next to what a sparse call leaves out its rounding is nothing, and float32 would take
    # a GPU many times as long.
    dense = pyramid_sparse_attention(q, k, v, _DENSE, causal=causal)
    wide = torch.promote_types(out.dtype, torch.float32)
    norm = torch.linalg.vector_norm(dense, dtype=wide)
    return torch.linalg.vector_norm(out - dense, dtype=wide) / norm.clamp_min(_TINY)


# Asked on every attention call.
@lru_cache(maxsize=512)
def _config_of_call(
    config: PSAConfig,
    step: int,
    steps: int | None,
    window: Steps,
    frames_per_token: int,
    reference_frames: tuple[int, int],
) -> PSAConfig:
    config = config_at(config, step, steps, window)
    if config.radial is None:
        return config
    radial = config.radial.replace(frames_per_token=frames_per_token, reference_frames=reference_frames)
    return config.replace(radial=radial)
