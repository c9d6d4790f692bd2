"""Calibrations that a model is given, in place of having its heads choose."""

from __future__ import annotations

from collections.abc import Mapping

from ..settings.at_step import sparse_layers
from ..settings.calibration import Calibration, check_calibration
from ..settings.config import PSAConfig
from ..settings.errors import ConfigError
from .place import Place


def given_to(calibrations: Mapping[int, Calibration], place: Place, heads: int) -> Calibration | None:
    """The calibration that a call of so many heads can follow; None where it has to choose for itself.

    Where several GPUs share the heads of a model, a call has some of them, and ``place.first_head`` alone says which.
    """
    given = calibrations.get(place.expert)
    if given is not None and place.first_head is not None:
        return given.layer(place.layer).part(place.first_head, heads)
    return given if given is not None and given.heads == heads and place.layer in given.recipes else None


def check_given(calibration: Calibration, config: PSAConfig, heads: int, layers: int | None) -> None:
    """See, before sampling starts, that a model can follow a calibration in every layer that runs sparse.

    Args:
        config: its settings.
        heads: attention heads of each layer.
        layers: transformer blocks; None when unknown, which leaves all but their number to be seen.

    Raises:
        ConfigError: it cannot; the message names what differs.
    """
    check_calibration(calibration)
    if config.mask_mode != "calibrated":
        raise ConfigError("mask_mode", config.mask_mode, "must be calibrated for a run with a calibration")
    for layer in [None] if layers is None else sparse_layers(config, layers):
        calibration.check_fits(config, heads, layer)
