"""Save Preset: the settings of a Preset Loader as a named preset of the user's own."""

from __future__ import annotations

from comfy_api.latest import io

from ..psa_core.settings.config import PSAConfig
from ..psa_core.settings.errors import ConfigError, errors_at
from ..psa_core.settings.preset_schema import ModelFamily, read_preset_file
from ..psa_core.settings.user_presets import check_name, save_preset
from .preset_files import DEFAULT_FAMILY, families, user_presets_dir
from .preset_loader import HIDDEN, widgets_from_config
from .saving import SavingNode
from .shared import Preset, say

_DESCRIPTION = "Saved in ComfyUI"


class PSASavePreset(SavingNode):
    check_name = staticmethod(check_name)

    @classmethod
    def define_schema(cls) -> io.Schema:
        known, _ = families()
        return io.Schema(
            node_id="PSASavePreset",
            display_name="Save Preset",
            category="PSA",
            description=(
                "Writes the numbers of a Preset Loader as a preset of your own, into ComfyUI/user/psa_presets. Preset "
                "Loaders list it after the run."
            ),
            search_aliases=["psa save", "store preset", "export settings", "save settings", "sparse"],
            inputs=[
                Preset.Input("preset", tooltip="From a Preset Loader: the settings to save."),
                io.Combo.Input(
                    "model",
                    options=list(known),
                    default=DEFAULT_FAMILY,
                    tooltip="Model to list the preset under. It goes into the file of this name.",
                ),
                io.String.Input(
                    "name",
                    default="mine",
                    tooltip=(
                        "Of the preset: letters, digits, spaces, . _ - + and at signs. Bundled presets stay as they "
                        "are."
                    ),
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip=(
                        "Replace a preset of yours that has this name and other settings. Off, that is an error. "
                        "Comments in the file are lost whenever a preset is written into it."
                    ),
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, preset: PSAConfig, model: str, name: str, overwrite: bool) -> io.NodeOutput:
        # A file that is not valid has to be named.
        with errors_at("Save Preset"):
            said = _save(preset, model, name, overwrite)
        say(cls.hidden.unique_id, said)
        return io.NodeOutput()


def _save(config: PSAConfig, model: str, name: str, overwrite: bool) -> str:
    """Save a preset, unless it is there; what was done, for people.

    Raises:
        ConfigError: the model or the name is not allowed, or the file to write to is not valid.
    """
    known, _ = families()
    if model not in known:
        raise ConfigError("model", model, "must be one of " + ", ".join(known))
    check_name("name", name)
    family = known[model]
    held = family.presets.get(name)
    if held is not None and _shows(held) == _shows(config):
        return f'"{name}" of {model} has these settings already'
    own = _own_family(model)
    can_write = own is not None and name in own.presets
    if held is not None and not can_write:
        allowed = f"{model} has a preset of this name that is bundled or in another file; choose another"
        raise ConfigError("name", name, allowed)
    if can_write and not overwrite:
        raise ConfigError("name", name, f"{model} has a preset of this name; turn overwrite on, or choose another")
    # The Preset Loader's numbers do not say it.
    whole = config.replace(text_length=(own or family).text_length, description=_DESCRIPTION)
    # Another server may have saved the name since.
    file = save_preset(model, name, whole, user_presets_dir(), overwrite=overwrite)
    return f'Saved "{name}" of {model} in {file.parent.name}/{file.name}; Preset Loaders list it'


def _own_family(model: str) -> ModelFamily | None:
    """What the user's file of this model's name says of it; None where it says nothing.

    Raises:
        ConfigError: the file is not valid.
    """
    file = user_presets_dir() / f"{model}.yaml"
    found = read_preset_file(file) if file.is_file() else []
    return next((family for family in found if family.name == model), None)


def _shows(config: PSAConfig) -> tuple[object, ...]:
    """All of a preset that does something; what a Preset Loader cannot show comes after what it can."""
    return widgets_from_config(config), *(getattr(config, key) for key in (*HIDDEN, "radial", "schedule"))
