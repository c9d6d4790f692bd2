"""Transformers: language models, and those that understand videos, read long prompts sparse::

    with patch(model) as handle:
        answer = model.generate(**inputs, max_new_tokens=64)
    print(handle.report.line())

Made for Qwen2.5-VL and Qwen3-VL; any model runs whose attention goes through transformers' ``AttentionInterface``.
Prompts are read sparse from ``min_tokens`` on, also in chunks and into a static cache; decoding, and whatever PSA does
not compute, runs what the model would have run (``sdpa``, ``eager``, ``flash_attention_2``). Vision towers stay as they
are. Padding in front of prompts or behind them is cut away row by row.

After :func:`register` models can also be loaded with ``attn_implementation="psa"``. A deep copy of a patched model is
of the model without the patch.

Needs transformers 4.57 or newer; tested with 4.57.3 and 5.24.0.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch

from ...ops.backends import check_backend
from ...report.report import Report
from ...settings.calibration import Calibration
from ...settings.config import PSAConfig
from ...settings.errors import ConfigError
from ..given import check_given
from ..run import Run
from .implementation import DEFAULT_BASE, LAYER, NAME, Layer, Registration, Switched, Unpatched
from .prompt import Prompt
from .settings import default_settings, family_of, for_prompts

__all__ = ["Handle", "family_of", "patch", "register", "report"]

log = logging.getLogger(__name__)


def patch(
    target: Any,
    config: PSAConfig | None = None,
    *,
    backend: str = "auto",
    keep_levels: bool = False,
    measure_errors: bool = False,
    calibration: Calibration | None = None,
) -> Handle:
    """Have a model read its prompts through Pyramid Sparse Attention.

    A model that is patched already, or a part of it, is patched anew. Calls that stay dense run what the model would
    have run.

    Args:
        target: a model of transformers, or a pipeline with one.
        config: settings; None for the default preset of the model. ``min_tokens`` counts the keys of a call, with what
            the cache holds. Steps of a denoising and orders of video tokens mean nothing here, and are left out.
        backend: ``"auto"`` leaves calls dense that the kernels cannot take; ``"triton"`` and ``"torch"`` insist.
        keep_levels: keep level maps in the report, for pictures.
        measure_errors: run every sparse call dense as well, and report how far its output is from that.
        calibration: recipes of every layer and head, which ``mask_mode="calibrated"`` takes instead of measuring which.

    Raises:
        TypeError: the model does not ask transformers for its attention.
        ConfigError: no such backend, also in the environment variable ``PSA_BACKEND``, settings that need a video's
            grid or the steps of a denoising, or a calibration that does not fit.
    """
    check_backend(backend)
    model = _model_of(target)
    text = model.config.get_text_config()
    layers = _layers_of(model, text)
    config = default_settings(text) if config is None else for_prompts(config)
    if config.verbose:
        log.info("PSA on %s: %s", type(model).__name__, config)
    if calibration is not None:
        check_given(calibration, config, text.num_attention_heads, len(layers))
        calibration.check_causal()
    run = Run(
        config, backend, Report(keep_levels), measure_errors, calibrations={0: calibration} if calibration else {}
    )
    for older in _handles_on(layers):
        older.restore()
    return Handle(model, text, layers, run, keep_levels)


class Handle:
    """A patched model; as a context manager, it restores on leaving."""

    def __init__(
        self, model: torch.nn.Module, text: Any, layers: list[torch.nn.Module], run: Run, keep_levels: bool
    ) -> None:
        self._text, self._layers = text, layers
        self._prompt = Prompt(run, Switched.on(text, _default_base(model)).base, keep_levels)
        for index, layer in enumerate(layers):
            setattr(layer, LAYER, Layer(self, self._prompt, index))

    @property
    def report(self) -> Report:
        """What the latest prompt and its answer did, with forward passes for steps; each prompt starts a new one."""
        return self._prompt.run.report

    def calibration(self, model: str = "") -> Calibration:
        """The recipes that heads had for the latest prompt, with ``mask_mode="calibrated"``.

        Args:
            model: what it is called in the calibration.

        Raises:
            ConfigError: no call was calibrated.
        """
        return self.report.calibrated.calibration(self._prompt.run.config, model)

    def restore(self) -> None:
        """Take the patch away. The report stays readable."""
        if not self._layers:
            return
        self._prompt.run.let_go()
        for layer in self._layers:
            delattr(layer, LAYER)
        self._layers = []
        Switched.off(self._text)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()


def register(config: PSAConfig | None = None) -> None:
    """Make ``attn_implementation="psa"`` known to transformers, for models that are loaded with it from now on.

    Their dense calls run ``sdpa``; :func:`patch` keeps what a model has.

    Args:
        config: settings of all of them; None for the default preset of each.

    Raises:
        ConfigError: as in :func:`patch`; and a model, when it runs, that ``sdpa`` does not fit.
    """
    Unpatched.use(None if config is None else for_prompts(config))
    Registration.keep()


def report(model: Any) -> Report:
    """What the latest prompt did in a model that was loaded with ``attn_implementation="psa"``, or is patched.

    Raises:
        TypeError: it is no model of transformers.
        ConfigError: it runs without PSA.
    """
    model = _model_of(model)
    text = model.config.get_text_config()
    handles = _handles_on(model.modules())
    if handles:
        return handles[0].report
    if text._attn_implementation != NAME:
        allowed = f"patch(model) has it read prompts sparse, as does loading it with {NAME!r}"
        raise ConfigError("attn_implementation", text._attn_implementation, allowed)
    return Unpatched.prompt(text).run.report


def _handles_on(modules: Iterable[torch.nn.Module]) -> list[Handle]:
    """The patches that some modules have, also those of a part of a model, or of a model that they are a part of."""
    layers = [getattr(module, LAYER, None) for module in modules]
    return list(dict.fromkeys(layer.handle for layer in layers if isinstance(layer, Layer)))


def _default_base(model: torch.nn.Module) -> str:
    """What dense calls run in a model whose settings say nothing but ``psa``."""
    return DEFAULT_BASE if getattr(model, "_supports_sdpa", True) else "eager"


def _model_of(target: Any) -> Any:
    """The model of a pipeline, or the one that was given, without what torch.compile puts around it.

    Raises:
        TypeError: there is none.
    """
    model = target if isinstance(target, torch.nn.Module) else getattr(target, "model", None)
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, torch.nn.Module) or not hasattr(getattr(model, "config", None), "get_text_config"):
        raise TypeError(
            f"only a model of transformers, or a pipeline with one, can be patched, not {type(target).__name__}"
        )
    return model


def _layers_of(model: torch.nn.Module, text: Any) -> list[torch.nn.Module]:
    """The layers of self-attention of a model whose language model has these settings.

    Raises:
        TypeError: there are none that ask transformers for their attention.
    """
    layers = [
        x
        for x in model.modules()
        if getattr(x, "config", None) is text and hasattr(x, "layer_idx") and getattr(x, "is_causal", False)
    ]
    asks = getattr(type(model), "_can_set_attn_implementation", None)
    if not layers or (asks is not None and not asks()):
        kind = type(model).__name__
        raise TypeError(f"{kind} has no causal attention that goes through transformers' AttentionInterface")
    return layers
