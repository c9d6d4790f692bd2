"""Clips of the tiny model from prompts and seeds, with dense attention or with a setting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from psa_core.apps.bench.rivals import sol_attention
from psa_core.hosts.diffusers import Handle, patch
from psa_core.models.tiny_video.model import load_pipeline
from psa_core.settings.config import PSAConfig

from .cases import Setting, Study, prompt

_GUIDANCE = 4.0


class Made(NamedTuple):
    """Clips ``[clips, frames, height, width, 3]`` from 0 to 1, and the density of sparse calls where PSA made them."""

    videos: np.ndarray
    density: float | None = None


class Sampler:
    """The tiny model on the GPU, or on the CPU where there is none."""

    def __init__(self) -> None:
        on_gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        self._backend = "auto" if on_gpu else "torch"
        self._pipeline = load_pipeline(torch.bfloat16 if on_gpu else torch.float32).to(self.device)
        self._pipeline.set_progress_bar_config(disable=True)
        # Clips are decoded one by one, so that memory does not grow with their number.
        self._pipeline.vae.enable_slicing()

    def dense(self, study: Study) -> Made:
        """All clips of a study with the model's own attention."""
        return Made(self._clips(study))

    def sparse(self, study: Study, setting: Setting) -> Made:
        """The same clips with a setting.

        Raises:
            RefusalError: Sol-Attn cannot take part.
        """
        with _cached(self._pipeline.transformer, setting.cache) if setting.cache else nullcontext():
            if setting.config is not None:
                return self._patched(study, setting, setting.config)
            if not setting.sol:
                return self.dense(study)
            with _SolAttention(self.device, setting.sol, study.dense_steps, study.steps) as mode:
                return Made(self._clips(study, mode))

    def _patched(self, study: Study, setting: Setting, config: PSAConfig) -> Made:
        config = config.replace(warmup_steps=study.dense_steps)
        with patch(self._pipeline, config, backend=self._backend) as handle:
            with _prompts_apart(handle) if setting.prompts_apart else nullcontext():
                videos = self._clips(study)
            density = handle.report.density()
        assert density is not None, handle.report.line()
        return Made(videos, density)

    def _clips(self, study: Study, mode: _SolAttention | None = None) -> np.ndarray:
        numbers = range(study.clips)
        batches = [numbers[i : i + study.batch] for i in range(0, study.clips, study.batch)]
        return np.concatenate([self._batch(study, batch, mode) for batch in batches])

    def _batch(self, study: Study, numbers: range, mode: _SolAttention | None) -> np.ndarray:
        def step_done(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if mode is not None:
                mode.step = step + 1
            return tensors

        if mode is not None:
            mode.step = 0
        return self._pipeline(
            prompt=[prompt(number) for number in numbers],
            width=study.clip.width,
            height=study.clip.height,
            num_frames=study.clip.frames,
            num_inference_steps=study.steps,
            guidance_scale=_GUIDANCE,
            output_type="np",
            # On the CPU, so that every machine has the same noise.
            generator=[torch.Generator().manual_seed(number) for number in numbers],
            callback_on_step_end=step_done,
        ).frames


class _SolAttention(TorchFunctionMode):
    """Self-attention through Sol-Attn, once the dense steps are over.

    Attributes:
        step: of the denoising under way.

    Raises:
        RefusalError: it cannot take part.
    """

    def __init__(self, device: torch.device, density: float, dense_steps: int, steps: int) -> None:
        super().__init__()
        self.step = 0
        self._attend = sol_attention(device)
        self._density, self._dense_steps, self._steps = density, dense_steps, steps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention and self.step >= self._dense_steps:
            q, k, v = args[:3] if len(args) >= 3 else (kwargs[name] for name in ("query", "key", "value"))
            # Keys of cross-attention are the prompt's, and fewer. The VAE's attention comes after the last step.
            if q.shape == k.shape and self.step < self._steps:
                # The model's rotary positions are in float32.
                half = (x.bfloat16() for x in (q, k, v))
                return self._attend(*half, self._density).to(q.dtype)
        return func(*args, **kwargs)


@contextmanager
def _cached(transformer: Any, threshold: float) -> Iterator[None]:
    """Have a step that begins as the one before take over what that came to."""
    from diffusers import FirstBlockCacheConfig

    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    try:
        yield
    finally:
        transformer.disable_cache()


@contextmanager
def _prompts_apart(handle: Handle) -> Iterator[None]:
    """Have what is kept of calls with the prompt serve none of those without it."""
    denoising = handle._denoising
    place = denoising.place
    denoising.place = lambda *layer: replace(  # type: ignore[method-assign]
        place(*layer), condition=denoising.position.repeats
    )
    try:
        yield
    finally:
        del denoising.place
