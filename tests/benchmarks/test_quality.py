"""The quality bench: no preset may be further from dense attention than it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks.quality.cases import in_tiny_model, quality_cases
from benchmarks.quality.results import QualityRow, drops, load_rows, quality_table, save_rows
from psa_core import ConfigError, PSAConfig
from psa_core.apps.cli import main
from psa_core.settings.dial import DIAL_PRESETS
from psa_core.settings.presets import bundled_dir, load_families

BASELINE = Path(__file__).parents[2] / "benchmarks" / "results" / "quality.json"
REFRESH = "; if that is meant, psa bench --quality on a CPU writes a new baseline"

ROW = QualityRow("M/p", ("M/p", "N/p"), density=0.2, psnr=30.0, ssim=0.95, latents_error=0.2)


def test_no_preset_is_worse_than_its_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    from benchmarks.quality.measure import measure_cases

    # The baseline is the CPU's, in float32.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = list(measure_cases())
    found = drops(rows, load_rows(BASELINE))
    assert not found, "\n".join(found) + REFRESH


def test_every_preset_is_measured_once() -> None:
    measured = [name for case in quality_cases() for name in case.presets]
    families = [x for x in load_families(bundled_dir()).values() if x.default not in DIAL_PRESETS and not x.host]
    sparse = [f"{x.name}/{name}" for x in families for name, config in x.presets.items() if config.type != "dense"]
    assert sorted(measured) == sorted(sparse)
    assert [row.name for row in load_rows(BASELINE)] == [case.name for case in quality_cases()]
    assert [row.presets for row in load_rows(BASELINE)] == [case.presets for case in quality_cases()]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"text_length": 226, "warmup_steps": 15, "min_tokens": 0, "attn_impl": "old_mask_type"}, True),
        ({"sim_thresholds": {"x2": 0.9}, "tile_size": (4, 4, 4), "description": "words"}, True),
        (
            {"mask_ratios": {1: (0, 0.4), 2: (0.4, 0.5), 4: (0.5, 0.6), 8: (0.6, 0.8), 16: (0.8, 0.8), 0: (0.8, 1)}},
            True,
        ),
        ({"use_sim_mask": True}, False),
        ({"use_rearrange": False}, False),
        ({"importance": "mean"}, False),
        ({"radial": {"decay_factor": 0.5}}, False),
    ],
)
def test_settings_without_effect_make_no_case(changes: dict, same: bool) -> None:
    assert (in_tiny_model(PSAConfig(**changes)) == in_tiny_model(PSAConfig())) is same


@pytest.mark.parametrize("text_length", [0, 226])
def test_masks_differ_by_their_rule_for_neighbouring_frames(text_length: int) -> None:
    short = PSAConfig(radial={"dense_layers": 1, "dense_timesteps": 3}, text_length=text_length, use_sim_mask=True)
    long = PSAConfig(radial={"dense_layers": 3, "dense_timesteps": 8}, text_length=text_length)
    assert in_tiny_model(short) == in_tiny_model(long)
    radial = in_tiny_model(short).radial
    assert radial is not None
    assert (radial.model_type, radial.dense_layers) == ("cogvideox" if text_length else "wan", 1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"psnr": 28.0}, "PSNR 28.00 dB, before 30.00"),
        ({"psnr": float("nan")}, "PSNR nan dB"),
        ({"ssim": 0.93}, "SSIM 0.9300, before 0.9500"),
        ({"latents_error": 0.3}, "error of latents 0.300, before 0.200"),
        ({"density": 0.21}, "density 0.2100, before 0.2000"),
        ({"density": 0.19}, "density 0.1900, before 0.2000"),
    ],
)
def test_drops_are_told(changes: dict, told: str) -> None:
    (line,) = drops([dataclasses.replace(ROW, **changes)], [ROW])
    assert line.startswith(f"M/p: {told}")


def test_noise_and_gains_are_no_drops() -> None:
    better = dataclasses.replace(ROW, psnr=33.0, ssim=0.97, latents_error=0.1)
    noisy = dataclasses.replace(ROW, psnr=29.99, ssim=0.9499, latents_error=0.2001, density=0.20001)
    assert drops([better], [ROW]) == drops([noisy], [ROW]) == []


def test_cases_that_come_and_go_are_told() -> None:
    other = dataclasses.replace(ROW, name="N/p")
    assert drops([ROW], [other]) == ["N/p: in the baseline alone", "M/p: not in the baseline"]


def test_files_keep_rows(tmp_path: Path) -> None:
    file = tmp_path / "results" / "quality.json"
    save_rows([ROW], "CPU", file)
    assert load_rows(file) == [ROW]
    assert "| M/p, N/p | 0.200 | 30.00 dB | 0.9500 | 0.200 |" in quality_table([ROW])
    file.write_text('{"rows": [{}]}', encoding="utf-8")
    with pytest.raises(ConfigError, match="psa bench --quality has written"):
        load_rows(file)


@pytest.mark.parametrize("arguments", [["--quality", "--quick"], ["--study", "--cases", "Wan"]])
def test_options_that_do_not_go_together(arguments: list[str], capsys) -> None:
    assert main(["bench", *arguments]) == 2
    assert f"has no meaning beside {arguments[0]}" in capsys.readouterr().err
