"""Diffusers: patch the video self-attention of a pipeline, or of its transformer alone::

    with patch(pipeline, config) as handle:
        video = pipeline(prompt).frames[0]
    print(handle.report.line())

A model keeps its own attention processors: projections, norms, rotary embeddings, LoRAs and fused projections run as
they always do. A hook goes around each self-attention layer and catches one call inside it, torch's
``scaled_dot_product_attention``. Cross-attention and every other model in the process stay as they are. Offloading,
LoRAs, attention backends and ``torch.compile`` may come before or after patching. A deep copy or a pickle of a patched
model is of the model without the patch.

Models that :mod:`.families` knows have a grid and sinks. Any other's long self-attention runs sparse in the order that
its tokens have. Masks that hide padding behind the tokens, as HunyuanVideo's do, leave calls sparse; others do not.

``transformer.compile_repeated_blocks(fullgraph=True)`` and ``torch.compile(transformer, fullgraph=True)`` keep the
caught call as one operator, which decides when it runs: layers, steps and patches share their graphs. Blocks
compiled one by one need torch 2.8 for that.

Steps are those that a pipeline is asked for: its scheduler tells them apart, also one that has the model called twice
a step, and a run that begins part way (video to video) begins at that step of the whole. A transformer that is patched
alone has its timesteps to go by, and each one below the last is a step; with other latents at its first timestep a
run begins anew.

Tested with diffusers 0.35.2 and 0.42.1.
"""

from __future__ import annotations

import inspect
import logging
import math
from functools import partial
from typing import Any

import torch

from ...ops.backends import check_backend
from ...ops.dense_backends import RefusalError, dense_attention
from ...ops.modes import is_traced
from ...report.report import Report
from ...settings.at_step import needs_steps
from ...settings.calibration import Calibration
from ...settings.config import PSAConfig, check_config
from ...settings.errors import ConfigError
from ...settings.schedule import Schedule
from ...settings.validation import check_whole, number_between
from ..kept_maps import MAP_MEMORY
from ..run import Run
from .attention import Layer
from .calibrations import GivenCalibrations, by_expert
from .denoising import Denoising
from .families import family_of, transformers_of
from .operators import enter, flat
from .parallel import merged
from .sharing import share_heads
from .steps import SchedulerSteps, TimestepSteps

__all__ = ["Handle", "patch", "share_heads"]

log = logging.getLogger(__name__)

_PATCH = "_psa_patch"


def patch(
    target: Any,
    config: PSAConfig,
    *,
    backend: str = "auto",
    steps: int | None = None,
    keep_levels: bool = False,
    measure_errors: bool = False,
    calibration: GivenCalibrations | None = None,
    map_memory: float = MAP_MEMORY,
) -> Handle:
    """Run the video self-attention of a pipeline or transformer through Pyramid Sparse Attention.

    A transformer that is patched already is patched anew. Calls that stay dense run what the model would have run,
    with the attention backend chosen for it.

    Args:
        target: a pipeline of diffusers (the two experts of Wan 2.2 count their steps together), or its transformer.
        config: settings; ``min_tokens``, ``warmup_steps``, ``schedule`` and ``radial`` apply.
        backend: ``"auto"`` leaves calls dense that the kernels cannot take; ``"triton"`` and ``"torch"`` insist.
        steps: of the whole denoising, for a transformer that runs without its pipeline; a pipeline's scheduler knows,
            and is not asked where this is given. ``schedule.steps`` does the same where this is None.
        keep_levels: keep level maps in the report, for pictures.
        measure_errors: run every sparse call dense as well, and report how far its output is from that.
        calibration: recipes of every layer and head, which ``mask_mode="calibrated"`` takes instead of measuring which:
            one for the only transformer, or of several, such as Wan 2.2's experts, one by the transformer's name in the
            pipeline, as :meth:`Handle.calibrations` has them. A transformer without one measures.
        map_memory: GiB that level maps may take which are kept from step to step (``map_steps``); what would go beyond
            is made anew in every step.

    Raises:
        TypeError: nothing here can be patched; the message says what can.
        ConfigError: no such backend, also in the environment variable ``PSA_BACKEND``, a number of ``steps`` or a
            ``map_memory`` that is none, settings that need the number of steps where nobody knows it, a calibration
            that does not fit, or a ``dense_backend`` that is not installed; one that cannot take the model's calls
            leaves them to its own attention, as the report says.
    """
    check_backend(backend)
    check_config(config)
    map_memory = number_between("map_memory", map_memory, 0.0, math.inf)
    if steps is not None:
        check_whole("steps", steps, 0)
    _check_dense_backend(config.dense_backend)
    transformers = transformers_of(target)
    if config.verbose:
        log.info("PSA on %s: %s", ", ".join(type(x).__name__ for x in transformers.values()), config)
    schedule = config.schedule or Schedule()
    steps = steps or schedule.steps or None
    scheduled = steps is None and getattr(target, "scheduler", None) is not None
    if needs_steps(config) and steps is None and not scheduled:
        raise ConfigError("steps", None, "must be given: the settings depend on it, and there is no scheduler to ask")
    rising = any(family_of(x).rising for x in transformers.values())
    counter = SchedulerSteps(target) if scheduled else TimestepSteps(steps, schedule.start_step, rising)
    report = Report(keep_levels)
    calibrations = by_expert(calibration, transformers, config)
    run = Run(config, backend, report, measure_errors, map_memory=map_memory, calibrations=calibrations)
    denoising = Denoising(run, keep_levels, counter)
    return Handle(denoising, {name: _Patch(x, i, denoising) for i, (name, x) in enumerate(transformers.items())})


def _check_dense_backend(name: str) -> None:
    if name == "model":
        return
    try:
        # Offloaded models are elsewhere until they run.
        dense_attention(name, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    except RefusalError as error:
        raise ConfigError("dense_backend", name, f"cannot run here: {error}") from None


class Handle:
    """A patched pipeline or transformer; as a context manager, it restores on leaving."""

    def __init__(self, denoising: Denoising, patches: dict[str, _Patch]) -> None:
        self._denoising, self._patches = denoising, patches

    @property
    def report(self) -> Report:
        """What the latest denoising run did; each run starts a new one."""
        return self._denoising.run.report

    def merged_report(self) -> Report:
        """The same of all GPUs that share the heads of a model (context parallelism); all of them have to call it.

        Times add up, and recipes are those of all heads. Level maps are each GPU's own.
        """
        return merged(self.report, next(iter(self._patches.values())).transformer)

    def calibration(self, model: str = "") -> Calibration:
        """The recipes that the heads of the only transformer had at the end of the latest run of
        ``mask_mode="calibrated"``; of several GPUs that share them, all of which have to call it, those of all heads.

        Args:
            model: what it is called in the calibration.

        Raises:
            ConfigError: there are several transformers, or no call was calibrated.
        """
        if len(self._patches) > 1:
            names = " and ".join(self._patches)
            raise ConfigError("calibration", "one", f"{names} have one each: calibrations() gives them by name")
        return next(iter(self.calibrations(model).values()))

    def calibrations(self, model: str = "") -> dict[str, Calibration]:
        """The same for every transformer that the run has calibrated, by its name in the pipeline: ``transformer``, and
        ``transformer_2`` for the second expert of Wan 2.2. :func:`patch` takes them as they are.

        Args:
            model: what it is called in the calibrations.

        Raises:
            ConfigError: no call was calibrated.
        """
        calibrated, config, names = self.merged_report().calibrated, self._denoising.run.config, list(self._patches)
        # Of a run without any, the first says so.
        experts = calibrated.experts or [0]
        return {names[expert]: calibrated.calibration(config, model, expert) for expert in experts}

    def restore(self) -> None:
        """Take the patch away, where no newer one has taken its place. The report stays readable."""
        for transformer_patch in self._patches.values():
            transformer_patch.remove()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()


class _Patch:
    """The hooks in one transformer, and which it is of those that share a run."""

    def __init__(self, transformer: torch.nn.Module, expert: int, denoising: Denoising) -> None:
        older = getattr(transformer, _PATCH, None)
        if older is not None:
            older.remove()
        self.transformer, self._denoising = transformer, denoising
        # Not a diffusers hook: accelerate, when offloading, replaces the transformer's forward, and removing a hook
        # that was there before would undo that.
        names = list(inspect.signature(type(transformer).forward).parameters)[1:]
        self._pre_hook = transformer.register_forward_pre_hook(
            partial(_note_inputs, denoising, names), with_kwargs=True
        )
        modules = family_of(transformer).modules(transformer)
        self._layers = [Layer(denoising, expert, index, module) for index, module in enumerate(modules)]
        setattr(transformer, _PATCH, self)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Copies and pickles of the transformer are not patched."""
        return type(None), ()

    def remove(self) -> None:
        """Restore the transformer; does nothing the second time."""
        self._pre_hook.remove()
        self._denoising.run.let_go()
        for layer in self._layers:
            layer.remove()
        self._layers.clear()
        if getattr(self.transformer, _PATCH, None) is self:
            delattr(self.transformer, _PATCH)


def _note_inputs(
    denoising: Denoising | None, names: list[str], transformer: torch.nn.Module, args: Any, kwargs: Any
) -> None:
    """Forward pre-hook of a transformer whose forward pass takes arguments of these names; a copy of it has no run."""
    if denoising is None:
        return
    call = dict(kwargs)
    for index, arg in enumerate(args):
        call[names[index]] = arg
    inputs = family_of(transformer).inputs(transformer, call)
    if is_traced():
        enter(denoising.number, *flat(inputs))
    else:
        denoising.enter(inputs)
