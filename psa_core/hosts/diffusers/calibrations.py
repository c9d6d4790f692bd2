"""Which calibration belongs to which transformer of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...settings.calibration import Calibration
from ...settings.config import PSAConfig
from ...settings.errors import ConfigError, errors_at
from ..given import check_given
from .families import family_of, heads_of

GivenCalibrations = Calibration | Mapping[str, Calibration]


def by_expert(
    given: GivenCalibrations | None, transformers: Mapping[str, torch.nn.Module], config: PSAConfig
) -> dict[int, Calibration]:
    """Calibrations by the place of their transformer among those of a pipeline; those without are left out.

    Args:
        given: as in :func:`psa_core.hosts.diffusers.patch`.
        transformers: by their names.
        config: settings that follow them.

    Raises:
        ConfigError: one that no transformer has, or that does not fit its transformer or the settings; the message
            names which.
    """
    names = list(transformers)
    if given is not None and not isinstance(given, Mapping):
        if len(names) > 1:
            keys = ", ".join(f"{name!r}: ..." for name in names)
            raise ConfigError("calibration", "one", f"each transformer has its own: give {{{keys}}}")
        given = {names[0]: given}
    for name, calibration in (given or {}).items():
        if name not in transformers:
            raise ConfigError("calibration", name, "there is no such transformer here, but " + ", ".join(names))
        with errors_at(name):
            layers = family_of(transformers[name]).modules(transformers[name])
            check_given(calibration, config, heads_of(layers[0]), len(layers))
    return {names.index(name): calibration for name, calibration in (given or {}).items()}
