"""The patch: wrappers around sampling and around each forward, and the attention override that they install.

A MODEL carries one immutable :class:`Patch`. Every sampler call gives birth to a :class:`~psa_core.hosts.run.Run`
(MODELs are cached and sampled again, so of a run only its report stays on them, until the next prompt samples), and
every forward puts an override in front of whatever override is on the hook by then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.model_patcher
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...ops.backends import check_backend
from ...ops.device_cache import clear_device_caches
from ...settings.at_step import Steps
from ...settings.calibration import Calibration
from ...settings.config import PSAConfig
from ...settings.remarks import remarks
from ...settings.schedule import Schedule
from ...settings.sizes import Grid
from ..noise_levels import Part, StepCounter, Window
from ..progress import Progress
from ..prompts import PromptsOfRun
from ..run import Run
from .announce import Announce, with_remarks
from .forward import Forward, under_way
from .last_prompt import LastPrompt
from .model_sparse_attention import LEFT_TO_IT
from .models import WITHIN_PROMPT, Inputs, VideoModel
from .override import attention_override, previous_override
from .reach import OVERRIDE_KEY, OptionsForBlocks, forget_graphs, is_compiled
from .references import leading_references
from .steps import part_of_denoising, stated_part, window_of

log = logging.getLogger(__name__)

PATCH_KEY = "psa"
_RUN_KEY = "psa_run"


@dataclass(frozen=True)
class Patch:
    """What a patched MODEL carries.

    Attributes:
        config: settings.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.
        model: the video model; None leaves every call dense.
        announce: shows a line on the node in place of the one before, or none for "": while a sampler call goes on,
            and what it did when it has ended, with its density if that is what the preset's ``mask_ratios`` came to.
        calibration: recipes that calibrated attention takes instead of measuring which; None for measuring.
        remarks: what to say below each line beside what the settings call for.
        source: where the settings come from, to stand above the remarks; "" where that need not be said.
        last_prompt: reports of the sampler calls of the last prompt; clones of the MODEL share it.
    """

    config: PSAConfig
    backend: str
    model: VideoModel | None
    announce: Announce | None = None
    calibration: Calibration | None = None
    remarks: tuple[str, ...] = ()
    source: str = ""
    last_prompt: LastPrompt = field(default_factory=LastPrompt, compare=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Patch:
        """Itself: it never changes, and the reports of a run on a copy are those of the node that shows them."""
        return self


@dataclass
class _Replica:
    """One model of a run: of several GPUs each has a copy, whose forwards run one after another in a thread.

    Attributes:
        prompts: tells those apart that forwards come with.
        seen: shapes of inputs with which a forward of it has ended.
        hooks: on a model whose forward calls its blocks without their options.
    """

    prompts: PromptsOfRun = field(default_factory=PromptsOfRun)
    seen: set[tuple[int, ...]] = field(default_factory=set)
    hooks: OptionsForBlocks | None = None


@dataclass
class _SamplerCall:
    """A run and the part of the schedule that it samples.

    Attributes:
        patch: that it runs with.
        window: noise levels at which calls may run sparse, and the steps that have them.
        leading: reference frames before the clip; None when unknown.
        announce: the patch's, with remarks on its settings in this call; None where nobody listens.
        progress: says how far it is, likewise.
        replicas: the copies of the model that it samples with, by their identity.
    """

    patch: Patch
    run: Run
    steps: StepCounter
    part: Part
    window: Window
    window_steps: Steps
    leading: int | None
    announce: Announce | None = None
    progress: Progress | None = None
    replicas: dict[int, _Replica] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> _SamplerCall:
        """Itself: copies of the options belong to the same run."""
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A run stays in its process: in pickles None has its place, and no run is under way."""
        return type(None), ()


def patch_model(model: comfy.model_patcher.ModelPatcher, patch: Patch) -> comfy.model_patcher.ModelPatcher:
    """A clone of a MODEL that samples with ``patch``; a patch that was there before is replaced.

    Raises:
        ConfigError: no such backend, also in the environment variable ``PSA_BACKEND``.
    """
    check_backend(patch.backend)
    clone = model.clone()
    clone.model_options.setdefault("transformer_options", {})[PATCH_KEY] = patch
    for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, _outer_sample), (WrappersMP.APPLY_MODEL, _apply_model)):
        clone.remove_wrappers_with_key(kind, PATCH_KEY)
        clone.add_wrapper_with_key(kind, PATCH_KEY, wrapper)
    # When ComfyUI takes the model off the GPU to free memory, what stands there for its shapes goes too.
    clone.remove_callbacks_with_key(CallbacksMP.ON_DETACH, PATCH_KEY)
    clone.add_callback_with_key(CallbacksMP.ON_DETACH, PATCH_KEY, _free_caches)
    return clone


def _free_caches(_patcher: comfy.model_patcher.ModelPatcher, _unpatch_all: bool) -> None:
    clear_device_caches()


def _outer_sample(
    executor: Any, noise: Any, latent_image: Any, sampler: Any, sigmas: torch.Tensor, *args: Any, **kwargs: Any
) -> Any:
    guider = executor.class_obj
    outer_options = guider.model_options
    patch: Patch | None = outer_options.get("transformer_options", {}).get(PATCH_KEY)
    if patch is None:
        # Another node has cleared the options, and left the wrappers.
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    latent = _latent(noise, kwargs)
    grid = None if patch.model is None else patch.model.grid(latent)
    call = _begin(patch, sigmas.tolist(), grid, guider)
    guider.model_options = comfy.model_patcher.create_model_options_clone(outer_options)
    guider.model_options["transformer_options"][_RUN_KEY] = call
    try:
        samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    except BaseException:
        # Of a run that was broken off nothing is known for sure, and its GPU may not be asked.
        if call.progress is not None:
            call.progress.end()
        if patch.announce is not None:
            patch.announce("")
        raise
    finally:
        guider.model_options = outer_options
        call.run.let_go()
        # Of a run that was broken off, another thread may be about to begin.
        for replica in list(call.replicas.values()):
            if replica.hooks is not None:
                replica.hooks.remove()
    patch.last_prompt.add(call.run.report)
    _announce(call)
    return samples


def _begin(patch: Patch, sigmas: list[float], grid: Grid | None, guider: Any) -> _SamplerCall:
    """A new run, for a sampler call on latents of this grid.

    Raises:
        ConfigError: the settings do not fit the clip or the number of steps.
    """
    given = {} if patch.calibration is None else {0: patch.calibration}
    run, part, window = Run(patch.config, patch.backend, calibrations=given), Part(0, len(sigmas) - 1), Window()
    leading: int | None = 0
    if patch.model is not None:
        model_sampling, latent_format = map(guider.model_patcher.get_model_object, ("model_sampling", "latent_format"))
        leading = leading_references(patch.model, getattr(guider, "conds", {}), latent_format)
        if leading is not None and grid is not None:
            run.check_frames(grid[0] - leading, patch.model.frames_per_token)
        schedule = patch.config.schedule or Schedule()
        part = stated_part(schedule, len(sigmas) - 1) or part_of_denoising(sigmas, model_sampling)
        window = window_of(schedule, model_sampling)
    run.end = part.before + len(sigmas) - 1
    if patch.config.verbose:
        log.info("PSA: %s; %d steps from step %d of %d on", patch.config, len(sigmas) - 1, part.before, part.steps)
    announce, progress = patch.announce, None
    if patch.model is not None:
        said = [*patch.remarks, *remarks(patch.config, part.steps, patch.model.layers)]
        for remark in said:
            log.warning("PSA: %s", remark)
        if announce is not None:
            announce = with_remarks(announce, [patch.source, *said])
            announce("")
            progress = Progress(announce, run.report)
            run.on_compile = progress.compiling
    in_window = window.steps(sigmas, part.before)
    return _SamplerCall(patch, run, StepCounter(sigmas), part, window, in_window, leading, announce, progress)


def _announce(call: _SamplerCall) -> None:
    """Say what a run did. It asks the GPU, and must not cost the samples when that fails: then nothing is known."""
    try:
        line, density = _line(call.run), call.run.report.density()
    except Exception as error:
        log.warning("PSA: what the attention of this run did cannot be read: %s: %s", type(error).__name__, error)
        line, density = "", None
    schedule = call.patch.config.schedule
    if call.announce is not None:
        said = "\n".join([line, *call.run.report.calibrated.remarks])
        call.announce(said, density if schedule is None or schedule.start is None else None)


def _line(run: Run) -> str:
    if run.report.sparse_count or run.report.dense_reasons.keys() - {WITHIN_PROMPT}:
        line = run.report.line()
        log.info("%s", line)
        if any(reason.endswith(LEFT_TO_IT) for reason in run.report.dense_reasons):
            log.warning(
                "Model Sparse Attention is on the same model as PSA Attention Patch, and takes calls that this leaves: "
                "use one of the two"
            )
    else:
        line = "PSA: no attention call reached the pack; another node has replaced this model's attention"
        log.warning("%s", line)
    return line


def _apply_model(
    executor: Any,
    x: torch.Tensor,
    t: torch.Tensor,
    c_concat: Any = None,
    c_crossattn: torch.Tensor | None = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    options = dict(transformer_options or {})
    call: _SamplerCall | None = options.get(_RUN_KEY)
    if call is not None:
        # The one wait for the GPU in a forward; samplers wait once a step anyway.
        sigma = float(t.max())
        step = call.part.before + call.steps.at(sigma)
        if call.progress is not None:
            call.progress.begin_forward(step, call.part.steps)
        text_length = 0 if c_crossattn is None else c_crossattn.shape[1]
        image_tokens = kwargs["clip_fea"].shape[-2] if kwargs.get("clip_fea") is not None else 0
        previous = previous_override(options.get(OVERRIDE_KEY))
        inputs = Inputs(_latent(x, kwargs), text_length, image_tokens, kwargs)
        when = (step, call.part.steps, call.window.holds(sigma), call.window_steps)
        facts = (*when, inputs, call.leading, x.device)
        # ComfyUI's MultiGPU CFG Split has a copy on each device, its Dual Model CFG Guider another model altogether.
        model: torch.nn.Module = executor.class_obj
        replica = call.replicas.setdefault(id(model), _Replica())
        prompts = replica.prompts.of(step, options.get("cond_or_uncond") or (), options.get("uuids") or ())
        forward = Forward(call.run, call.patch.model, *facts, prompts, previous, id(model), options)
        options[OVERRIDE_KEY] = attention_override

        def run() -> Any:
            with call.run.report.time_model(x.device), under_way(forward):
                return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

        return _reached(run, replica, (*x.shape, text_length), forward, model)
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _reached(
    run: Callable[[], Any], replica: _Replica, shape: tuple[int, ...], forward: Forward, model: torch.nn.Module
) -> Any:
    """What a forward gives. Where the first of a shape reaches no attention, see that the others do.

    Graphs are kept by shape, and each may be from before the patch. Later forwards may be answered by a cache.
    """
    out = run()
    known = shape in replica.seen
    replica.seen.add(shape)
    if forward.reached or forward.model is None or known:
        return out
    if is_compiled(model, forward.options):
        forget_graphs()
        out = run()
    if not forward.reached and replica.hooks is None:
        replica.hooks = OptionsForBlocks(model)
    return out


def _latent(x: torch.Tensor, kwargs: dict[str, Any]) -> tuple[int, ...]:
    """The shape of the video's latent, which models that make sound as well get packed into one with that."""
    shapes = kwargs.get("latent_shapes")
    return tuple(shapes[0]) if shapes else tuple(x.shape)
