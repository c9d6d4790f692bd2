"""Which model a command line means: by its name, or by a folder that says what it holds."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...settings.errors import ConfigError
from .models import MODELS, Model

INDEX, MODULAR_INDEX = "model_index.json", "modular_model_index.json"
# Of a pipeline that nothing is known of, sizes are its own.
_OTHER = Model("", 0, 0, 0, guidance=5.0, frames_per_second=16, size_step=1, frames_step=1, presets="Any")
_LARGE = 5120


class Chosen(NamedTuple):
    """A model.

    Attributes:
        name: in ``MODELS``, or that of its pipeline.
        facts: what is known of it.
        path: folder or hub id of its weights.
    """

    name: str
    facts: Model
    path: str

    @property
    def presets(self) -> str:
        """Its name in preset files."""
        return self.facts.presets or self.name


def choose_model(model: str | None, path: str | None) -> Chosen:
    """The model of ``--model`` and ``--path``: a name with or without a path, or a folder as either of them.

    Raises:
        ConfigError: it is no name, and no folder with a pipeline of diffusers.
    """
    if model in MODELS:
        facts = MODELS[model]
        return Chosen(model, facts, facts.hub_id if path is None else path)
    by_hub_id = next((name for name, facts in MODELS.items() if model and facts.hub_id == model), None)
    if by_hub_id is not None:
        return choose_model(by_hub_id, path)
    given = path if model is None else model
    # Anything may be given; pathlib raises errors of its own for what is no path.
    folder = Path(os.path.expanduser(given or ""))
    index = next((name for name in (INDEX, MODULAR_INDEX) if given and os.path.isfile(folder / name)), None)
    if given and index is not None:
        if model is not None and path is not None:
            raise ConfigError("--path", path, "must not stand beside a folder as --model: leave one of them out")
        return _recognise(given, folder, index)
    option = "--path" if model is None and path is not None else "--model"
    if given and os.path.isdir(folder):
        what = f"is a folder without {INDEX} or {MODULAR_INDEX}, which models of diffusers have"
    elif option == "--path":
        what = "is no folder with a model of diffusers; of a hub id, --model has to say which model it is"
    else:
        what = "must be one of " + ", ".join(MODELS) + ", or a folder with a model of diffusers" + _nearest(given)
    raise ConfigError(option, given, what)


def _nearest(given: str | None) -> str:
    """The name that may have been meant, for people."""
    by_letters = {name.lower(): name for name in MODELS}
    near = difflib.get_close_matches((given or "").lower(), by_letters, n=1, cutoff=0.75)
    return f"; the nearest name is {by_letters[near[0]]}" if near else ""


def _recognise(given: str, folder: Path, file: str) -> Chosen:
    index = _read(folder / file)
    kind = str(index.get("_class_name"))
    known = {name: facts for name, facts in MODELS.items() if kind in (facts.pipeline, facts.image_pipeline)}
    known.pop("tiny_video", None)
    if not known and file == MODULAR_INDEX:
        modular = ", ".join(name for name, facts in MODELS.items() if facts.workflows)
        raise ConfigError("--model", given, f"holds a {kind}; of modular pipelines, these make videos here: {modular}")
    if not known:
        # Whether it takes a picture, its call says.
        return Chosen(kind, dataclasses.replace(_OTHER, pipeline=kind, image_pipeline=kind), given)
    # An own name for a pipeline that takes a picture comes before a model that takes one as well.
    candidates = {name: facts for name, facts in known.items() if (facts.pipeline or kind) == kind} or known
    transformer = _read(folder / "transformer" / "config.json")
    fitting = [name for name in candidates if _fits(name, index, transformer)]
    name = fitting[0] if fitting else next(iter(candidates))
    return Chosen(name, MODELS[name], given)


def _fits(name: str, index: Mapping[str, Any], transformer: Mapping[str, Any]) -> bool:
    """Whether a folder's sizes are those of a model among others with its pipeline."""
    if name.startswith("Wan"):
        experts, by_token = index.get("boundary_ratio") is not None, index.get("expand_timesteps")
        width = transformer.get("num_attention_heads", 40) * transformer.get("attention_head_dim", 128)
        size = "A14B" if experts else "5B" if by_token else "14b" if width >= _LARGE else "1.3b"
        return name.split("_")[1] == size
    if name.startswith("CogVideo"):
        heads = transformer.get("num_attention_heads", 30)
        size = "CogVideo1.5_5b" if transformer.get("patch_size_t") else "CogVideo_5b" if heads >= 48 else "CogVideo_2b"
        return name.removesuffix("_I2V") == size
    return True


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
