"""Modular pipelines of diffusers, called as its other pipelines are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch

from ...settings.errors import ConfigError
from .choose_model import MODULAR_INDEX
from .video_settings import GenerateSettings


class Modular:
    """A modular pipeline with the blocks of one workflow. What is not said here is its own.

    Args:
        pipeline: the modular pipeline.
        blocks: of the workflow, which it runs.
        manager: of its models.
    """

    def __init__(self, pipeline: Any, blocks: Any, manager: Any) -> None:
        self._pipeline, self._blocks, self._manager = pipeline, blocks, manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def __call__(self, **inputs: Any) -> SimpleNamespace:
        """Its videos as ``frames``."""
        return SimpleNamespace(frames=self._pipeline(**inputs, output="videos"))

    @property
    def input_names(self) -> list[str]:
        """What a call takes."""
        return list(self._blocks.input_names)

    @property
    def with_bar(self) -> Any:
        """The block that has the progress bar: the loop over steps."""
        return next(block for block in self._blocks.sub_blocks.values() if hasattr(block, "progress_bar"))

    def enable_model_cpu_offload(self) -> None:
        """Have models on the GPU while they run."""
        self._manager.enable_auto_cpu_offload()

    def maybe_free_model_hooks(self) -> None:
        """Nothing: models move when another is called, whatever became of a run."""


def parts_of(settings: GenerateSettings) -> list[str]:
    """The files of a repository that a workflow needs, as patterns."""
    needed = (spec.name for spec in _blocks(settings).expected_components if _is_loaded(spec))
    return [MODULAR_INDEX, *(f"{name}/*" for name in needed)]


def load_modular(settings: GenerateSettings, folder: Path, dtypes: dict[str, torch.dtype]) -> Modular:
    """The pipeline in a folder; whatever its parts raise is raised."""
    blocks, manager = _blocks(settings), diffusers.ComponentsManager()
    kind = getattr(diffusers, settings.pipeline)
    pipeline = kind(blocks, str(folder), components_manager=manager, local_files_only=True)
    parts = {}
    # Its own way of loading logs what is wrong, and goes on without.
    for name in pipeline.null_component_names:
        spec = pipeline.get_component_spec(name)
        if spec.pretrained_model_name_or_path is None:
            raise ConfigError(MODULAR_INDEX, None, f"says nothing of {name}")
        parts[name] = spec.load(dtype=dtypes.get(name, dtypes["default"]), local_files_only=True)
    pipeline.register_components(**parts)
    return Modular(pipeline, blocks, manager)


def _blocks(settings: GenerateSettings) -> Any:
    """Those of the workflow that makes these videos."""
    kind = getattr(diffusers, settings.pipeline)
    return getattr(diffusers, kind.default_blocks_name)().get_workflow(settings.workflow)


def _is_loaded(spec: Any) -> bool:
    return bool(spec.default_creation_method == "from_pretrained")
