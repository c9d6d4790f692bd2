"""What nodes share that save something of a run under a name."""

from __future__ import annotations

from collections.abc import Callable

from comfy_api.latest import io

from ..psa_core.settings.errors import ConfigError


class SavingNode(io.ComfyNode):
    """Writes a file that its widget ``name`` names.

    Attributes:
        check_name: raises a ConfigError for a name that is not allowed, given the widget and the name.
    """

    check_name: Callable[[str, str], None]

    @classmethod
    def validate_inputs(cls, name: str | None) -> bool | str:
        """Refuse a bad name before anything runs. A name from another node is None until then."""
        if name is not None:
            try:
                cls.check_name("name", name)
            except ConfigError as error:
                return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> float:
        """Run every time: the file may have been changed or deleted since."""
        return float("nan")
