"""What Load Calibration hands to a patch: a calibration, and what to do where it cannot be followed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...settings.calibration import Calibration
from ...settings.config import PSAConfig
from ...settings.errors import ConfigError, errors_at
from ...settings.presets import bundled_dir, load_families
from ...settings.user_calibrations import load_calibration
from ...settings.validation import check_choice
from ..given import check_given
from .models import VideoModel

ERROR, ANEW = "error", "measure anew"
OTHERWISE = (ERROR, ANEW)


@dataclass(frozen=True)
class LoadedCalibration:
    """A calibration by name.

    Attributes:
        name: of its file.
        calibration: None where there is none.
        why_not: why there is none, in words.
        otherwise: what to do where there is none or it does not fit: ``"error"`` or ``"measure anew"``.
    """

    name: str
    calibration: Calibration | None
    why_not: str = ""
    otherwise: str = ERROR

    @classmethod
    def load(cls, name: str, folder: Path, otherwise: str) -> LoadedCalibration:
        """Read it from the user's folder.

        Raises:
            ConfigError: ``otherwise`` is neither of its two, or is ``"error"`` and there is no such file or it is not
                valid.
        """
        check_choice("otherwise", otherwise, OTHERWISE)
        try:
            return cls(name, load_calibration(name, folder), otherwise=otherwise)
        except ConfigError as error:
            if otherwise == ERROR:
                raise
            return cls(name, None, str(error), otherwise)

    def fitted(self, config: PSAConfig, video_model: VideoModel) -> tuple[Calibration | None, tuple[str, ...]]:
        """What a model can follow of it, and in words that and why it follows nothing.

        Args:
            config: settings of the patch.
            video_model: which it is.

        Raises:
            ConfigError: it does not fit, and ``otherwise`` is ``"error"``; the message names what differs.
        """
        why_not = self.why_not
        if self.calibration is not None:
            try:
                with errors_at(f'calibration "{self.name}"'):
                    _check_fits(self.calibration, config, video_model)
                return self.calibration, ()
            except ConfigError as error:
                if self.otherwise == ERROR:
                    raise
                why_not = str(error)
        done = "measured anew" if config.mask_mode == "calibrated" else "no calibration is used"
        return None, (f"{done}: {why_not}",)


def _check_fits(calibration: Calibration, config: PSAConfig, video_model: VideoModel) -> None:
    if not video_model.heads:
        raise ConfigError("model", video_model.family, "has no layers that are known, which calibrations are made for")
    made_on = calibration.model
    # A name that somebody else gave it says nothing of ours.
    if made_on != video_model.family and made_on in load_families(bundled_dir()):
        raise ConfigError("model", video_model.family, f"the calibration was made on {made_on}")
    check_given(calibration, config, video_model.heads, video_model.layers)
