"""What the last prompt did that sampled with a patched MODEL, for the nodes behind the sampler."""

from __future__ import annotations

import comfy.model_patcher

from ...report.calibrated import Calibrated
from ...report.report import Report
from ...settings.calibration import Calibration
from .patch import PATCH_KEY, Patch


class NothingSampledError(RuntimeError):
    """A MODEL has no patch or has not sampled; the message says which, and what to connect."""


def reports_of(**models: comfy.model_patcher.ModelPatcher | None) -> tuple[list[Report], list[str]]:
    """What the last prompt did that sampled with each of these MODELs.

    Args:
        models: by the name of the input that they come from; None for an input that is not connected.

    Returns:
        A report for each patch among them, and of each MODEL without one in words why.
    """
    found = []
    missing = []
    for key, model in models.items():
        if model is None:
            continue
        try:
            last_prompt = _sampled(key, model).last_prompt
        except NothingSampledError as error:
            missing.append(str(error))
        else:
            if last_prompt not in found:
                found.append(last_prompt)
    return [Report.of(last_prompt.reports) for last_prompt in found], missing


def calibration_of(key: str, model: comfy.model_patcher.ModelPatcher) -> Calibration:
    """What the last prompt measured that sampled with a MODEL. Waits for the GPU.

    Args:
        key: name of the input that it comes from.

    Raises:
        NothingSampledError: it is not patched, has not sampled, has its recipes from a calibration, is of a family that
            is not known, or other GPUs have some of its heads.
        ConfigError: no layer was calibrated, or one cannot be.
    """
    patch = _sampled(key, model)
    if patch.calibration is not None:
        raise NothingSampledError(f"{key} has measured nothing: its recipes come from a Load Calibration")
    if patch.model is not None and not patch.model.heads:
        raise NothingSampledError(f"the layers of {key} are not known, and a calibration is for those of a known model")
    calibrated = Calibrated.of(report.calibrated for report in patch.last_prompt.reports)
    calibration = calibrated.calibration(patch.config, "" if patch.model is None else patch.model.family)
    heads = 0 if patch.model is None else patch.model.heads
    if heads and calibration.heads != heads:
        raise NothingSampledError(
            f"attention calls of {key} had {calibration.heads} of its {heads} heads, as where GPUs share them: "
            "calibrate on one GPU"
        )
    return calibration


def _sampled(key: str, model: comfy.model_patcher.ModelPatcher) -> Patch:
    """The patch of a MODEL that has sampled."""
    patch: Patch | None = model.model_options.get("transformer_options", {}).get(PATCH_KEY)
    name = f"{key} ({type(model.model).__name__})"
    if patch is None:
        raise NothingSampledError(
            f"{name} is not patched: connect the MODEL that comes out of PSA Attention Patch, with enabled on"
        )
    if not patch.last_prompt.reports:
        raise NothingSampledError(
            f"{name} has not sampled yet: give it to a sampler, and connect what the sampler makes to samples"
        )
    return patch
