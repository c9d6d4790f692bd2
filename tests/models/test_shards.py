"""Models in several files: any of them finds all, and a missing one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from psa_core.models.cogvideox.shards import all_shards
from psa_core.settings.errors import ConfigError


def _touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_any_part_finds_all_in_order(tmp_path: Path, chosen: int) -> None:
    parts = _touch(tmp_path, *(f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)))
    _touch(tmp_path, "model-00001-of-00002.safetensors", "other-00001-of-00003.safetensors")

    assert all_shards(parts[chosen], "unet_name") == parts


def test_more_than_nine_parts(tmp_path: Path) -> None:
    parts = _touch(tmp_path, *(f"model-{number:05}-of-00011.safetensors" for number in range(1, 12)))

    assert all_shards(parts[3], "unet_name") == parts


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model-1.safetensors", "one-of-a-kind.safetensors", "a-0-of-0.bin", "a-4-of-3.bin"]
)
def test_a_whole_file_is_alone(tmp_path: Path, name: str) -> None:
    assert all_shards(tmp_path / name, "unet_name") == [tmp_path / name]


def test_missing_parts_are_named(tmp_path: Path) -> None:
    (part,) = _touch(tmp_path, "model-00002-of-00003.safetensors")

    with pytest.raises(ConfigError) as error:
        all_shards(part, "unet_name")

    assert str(error.value) == (
        "unet_name = 'model-00002-of-00003.safetensors': is one of 3 files; put model-00001-of-00003.safetensors and "
        "model-00003-of-00003.safetensors beside it"
    )


def test_millions_of_parts_are_not_counted(tmp_path: Path) -> None:
    (part,) = _touch(tmp_path, "model-0000001-of-999999999.safetensors")

    with pytest.raises(ConfigError, match=r"model-0000003-of-\d+.safetensors and .* and others beside it"):
        all_shards(part, "unet_name")
