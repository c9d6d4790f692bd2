"""The demo, from the tiny pipeline to the files on disk, at sizes that take seconds."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from psa_core import ConfigError, load_presets
from psa_core.apps.compare.comparison_settings import CompareSettings
from psa_core.apps.demo import add_options, read_settings, run_demo
from psa_core.report.report import Report
from psa_core.settings.mask_ratios import quota_density

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")
pytest.importorskip("skimage")
iio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")


from psa_core.report.pictures.heat_maps import density_picture, levels_picture  # noqa: E402

LAYERS = 12
FILES = {"dense.mp4", "psa.mp4", "upstream.mp4", "side_by_side.mp4", "levels.png", "density.png", "report.json"}


def settings_of(*words: object) -> CompareSettings:
    """The settings of a command line."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return read_settings(parser.parse_args([str(word) for word in words]))


def small(output: Path) -> CompareSettings:
    """A clip far smaller than the model was trained for."""
    size = ("--steps", 4, "--frames", 5, "--width", 192, "--height", 96)
    return settings_of("--output", output, "--prompt", "a blue star", *size, "--seed", 5)


def smallest(output: Path, seed: int, *words: str) -> CompareSettings:
    """One sparse step of a clip too small to look at."""
    size = ("--steps", 3, "--frames", 5, "--width", 96, "--height", 96)
    return settings_of("--output", output, *size, "--seed", seed, *words)


def test_writes_every_file_and_says_in_a_table_what_it_did(tmp_path: Path) -> None:
    table = run_demo(small(tmp_path / "new" / "folder"))
    output = tmp_path / "new" / "folder"
    assert {file.name for file in output.iterdir()} == FILES
    report = json.loads((output / "report.json").read_text())
    _, dense, dial, upstream, *_ = (re.split(r"  +", line) for line in table.splitlines())
    assert (dense[0], dense[1]) == ("dense attention", "1.000")
    for row, name, numbers in ((dial, "balanced", report), (upstream, "upstream's recipe", report["upstream"])):
        quality = numbers["quality"]
        shown = f"{quality['psnr']:.1f} dB", f"{quality['ssim']:.3f}", f"{quality['flicker']:.3f}"
        assert row[:-1] == [name, f"{numbers['density']:.3f}", *shown]
    size = {"steps": 4, "frames": 5, "width": 192, "height": 96}
    assert report["settings"] == {"prompt": "a blue star", **size, "seed": 5}
    assert report["config"]["type"] == "psa"
    guided = 2
    assert report["dense_calls"] == {"warm-up": guided * LAYERS}
    places = [(step, layer) for step in (1, 2, 3) for _ in range(guided) for layer in range(LAYERS)]
    assert [(x["step"], x["layer"]) for x in report["sparse_calls"]] == places
    assert 0 < report["density"] < 1
    assert 10 < report["quality"]["psnr"] < 60
    for name in ("dense", "psa", "upstream"):
        assert iio.imread(output / f"{name}.mp4", plugin="FFMPEG").shape == (5, 96, 192, 3)
    assert iio.imread(output / "side_by_side.mp4", plugin="FFMPEG").shape == (5, 128, 608, 3)
    for name in ("levels", "density"):
        assert np.ptp(iio.imread(output / f"{name}.png")) > 100


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    def numbers(seed: int) -> dict:
        run_demo(smallest(tmp_path, seed))
        report = json.loads((tmp_path / "report.json").read_text())
        return {key: report[key] for key in ("density", "quality", "sparse_calls")}

    first = numbers(3)
    assert numbers(3) == first
    assert numbers(4) != first


@pytest.mark.parametrize("quality", ["fast", "balanced", "near_dense"])
def test_upstreams_recipe_stands_beside_the_dial_at_its_density(quality: str) -> None:
    presets = load_presets()["tiny_video"]
    dial, upstream = settings_of("--quality", quality).presets
    assert (dial.preset, dial.config) == (quality, presets[f"auto_{quality}"])
    assert dial.config.target_density == pytest.approx(quota_density(upstream.config.mask_ratios))
    alike = ("block_m", "block_n", "warmup_steps", "map_steps", "min_tokens")
    assert [getattr(dial.config, name) for name in alike] == [getattr(upstream.config, name) for name in alike]
    theirs = presets["psa_balanced"]
    for name in ("importance", "use_rearrange", "rearrange_method"):
        assert getattr(upstream.config, name) == getattr(theirs, name)


def test_the_dial_stands_at_balanced() -> None:
    assert settings_of() == settings_of("--quality", "balanced")
    with pytest.raises(ConfigError, match="--quality = 'best': must be one of fast, balanced, near_dense"):
        settings_of("--quality", "best")


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("steps", 1, "more than 1"),
        ("steps", -1, "1 or more"),
        ("frames", 32, "a multiple of 4 and one more"),
        ("frames", 1, "a multiple of 4 and one more"),
        ("width", 100, "a multiple of 16"),
        ("height", 16, "a multiple of 16, 32 or more"),
        ("seed", -1, "0 to"),
    ],
)
def test_a_setting_that_is_not_allowed_is_named(option: str, value: int, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option} = {value}: must be .*{allowed}"):
        settings_of(f"--{option}", value)


def test_a_word_that_the_model_does_not_know_is_named() -> None:
    with pytest.raises(ConfigError, match="--prompt: word = 'dog': the tiny model knows the words a, an, and"):
        settings_of("--prompt", "a red dog")


def test_settings_that_leave_nothing_sparse_are_refused(tmp_path: Path) -> None:
    settings = smallest(tmp_path, 5, "--schedule", "dense_layers=0-11")
    with pytest.raises(ConfigError, match="--schedule, --radial = None: leave no call sparse"):
        run_demo(settings)


def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(ConfigError, match=r"--output = .*cannot be written"):
        run_demo(small(taken / "folder"))


def test_pictures_of_a_report_without_anything_to_draw_say_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_levels"):
        levels_picture(Report(), tmp_path / "levels.png")
    with pytest.raises(ValueError, match="no call ran sparse"):
        density_picture(Report(), tmp_path / "density.png")


def test_pictures_of_a_large_and_gappy_report(tmp_path: Path) -> None:
    report = Report(keep_levels=True)
    levels = torch.tensor([0, 1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8).repeat(1, 1, 3, 1)
    for step in range(3, 50, 2):
        for layer in range(40):
            if (step + layer) % 3:
                report.add_sparse(step, layer, torch.tensor([0.2, 0.1]), levels)
    levels_picture(report, tmp_path / "levels.png")
    density_picture(report, tmp_path / "density.svg")
    assert {file.name for file in tmp_path.iterdir()} == {"levels.png", "density.svg"}
