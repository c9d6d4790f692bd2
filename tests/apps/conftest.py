"""Tiny random pipelines, made once, and the commands that run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

# Imports of ..support are inside: it needs diffusers, and without that the tests skip.


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline of every family, and LoRAs."""
    from ..support.generate_command import FOLDERS

    folder = tmp_path_factory.mktemp("weights")
    for name in (*sorted(set(FOLDERS.values())), "cogvideox_lora", "wan_lora"):
        _save(name, folder / name)
    return folder


@pytest.fixture
def generate(weights: Path, tmp_path: Path) -> Any:
    from ..support.generate_command import Generate

    return Generate(weights, tmp_path / "new" / "folder")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny pipeline and a preset file."""
    from ..support.compare_command import PRESETS

    folder = tmp_path_factory.mktemp("compare")
    _save("wan_2_1", folder / "wan")
    (folder / "mine.yaml").write_text(PRESETS, encoding="utf-8")
    return folder


@pytest.fixture
def compare(folder: Path, tmp_path: Path) -> Any:
    from ..support.compare_command import Compare

    return Compare(folder, tmp_path / "new" / "folder")


def _save(pipeline: str, folder: Path) -> None:
    from ..support import tiny_pipelines

    save: Any = getattr(tiny_pipelines, f"save_{pipeline}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save(folder)
