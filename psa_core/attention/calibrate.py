"""Calibration of plain tensors: measured once, kept as a file, and given to calls that then choose nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..ops.backends import choose_backend
from ..ops.device_cache import device_cache
from ..report.calibrated import Calibrated, Given
from ..settings.calibration import Calibration
from ..settings.config import PSAConfig, check_config
from ..settings.errors import ConfigError
from ..settings.recipe import Recipe
from ..settings.sinks import video_start
from ..settings.sizes import Grid
from .checks import check_call
from .choose import choose_recipes
from .recipes import Choice
from .steps import trial_of


def calibrate(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: PSAConfig | None = None,
    *,
    grid: Grid | None = None,
    text_length: int = 0,
    sinks: Sequence[tuple[int, int, bool]] = (),
    static_levels: torch.Tensor | None = None,
    backend: str = "auto",
    causal: bool = False,
    layer: int = 0,
    model: str = "",
) -> Calibration:
    """Measure what each head needs: the error of every candidate recipe on a few query blocks, and the choice by it.

    Candidates are the config's ``candidate_orders`` (raster order, rows, columns and the Gilbert curve if it says no
    others), each with the three mixes (level 1 with importance by ``sampled_max``, the others by
    ``sub_block_mass``), at the config's ``target_density``, or at a ladder of densities of which each head takes the
    lowest that keeps to ``target_error``. A head of several batch entries that choose differently gets the recipe of
    the one with the largest error. Deterministic.

    Args:
        q, k, v, grid, text_length, sinks, static_levels, backend, causal: as of
            :func:`psa_core.pyramid_sparse_attention`. With a mask, with ``static_levels`` and in causal calls, tokens
            stay in the order they have; without a grid, but for ``"Semantic"``.
        config: settings with ``mask_mode="calibrated"``; None for these at density 0.15.
        layer: the number that the calibration has for it.
        model: its name in the calibration.

    Returns:
        The calibration of one layer. Waits for the device.

    Raises:
        ConfigError: shapes or settings do not fit; the message names which.
        BackendError: as there.
    """
    config = config if config is not None else PSAConfig(mask_mode="calibrated")
    check_config(config)
    if config.mask_mode != "calibrated":
        raise ConfigError("mask_mode", config.mask_mode, "must be calibrated: there is nothing to choose otherwise")
    every_sink = check_call(q, k, v, config, grid, text_length, sinks, static_levels, causal)
    if config.radial is not None and config.radial.decides_alone:
        raise ConfigError("radial.mode", config.radial.mode, "leaves nothing to choose: intersect and finer wins do")
    backend = choose_backend(backend, q, k, v)
    trial = trial_of(q, k, v, config, grid, every_sink, static_levels, backend, causal=causal)
    choice = choose_recipes(trial)
    record = Calibrated()
    given = Given(choice.recipes, choice.of_head, choice.errors, config.target_error, grid, video_start(every_sink))
    record.give(0, layer, None, given)
    return record.calibration(config, model)


def given_choice(calibration: Calibration, q: torch.Tensor, config: PSAConfig, layer: int | None = None) -> Choice:
    """The choice that a calibration has for a layer, for all batch entries.

    Args:
        q: of the call, ``[B, H, Lq, D]``.
        layer: which; None for the only one.

    Raises:
        ConfigError: it has none for such a layer; the message names what differs.
    """
    calibration.check_fits(config, q.shape[1], layer)
    at = next(iter(calibration.recipes)) if layer is None else layer
    recipes = tuple(dict.fromkeys(calibration.recipes[at]))
    numbers = tuple(recipes.index(recipe) for recipe in calibration.recipes[at])
    return _given(recipes, numbers, tuple(calibration.errors[at]), q.shape[0], q.device)


@device_cache(maxsize=256)
def _given(
    recipes: tuple[Recipe, ...], numbers: tuple[int, ...], errors: tuple[float, ...], batch: int, device: torch.device
) -> Choice:
    of_head = torch.tensor(numbers, device=device).expand(batch, -1)
    spot = torch.zeros((2, batch, len(numbers)), device=device)
    return Choice(recipes, of_head, torch.tensor(errors, device=device).expand(batch, -1), spot)
