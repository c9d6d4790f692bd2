"""The demo, from the tiny pipeline to the files on disk, at sizes that take seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from psa_core import ConfigError, PSAConfig
from psa_core.demo.settings import DemoSettings
from psa_core.report import Report

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")
iio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")

from psa_core.demo.run import run_demo  # noqa: E402
from psa_core.demo.tiny_model import tiny_pipeline  # noqa: E402
from psa_core.hosts.diffusers import patch  # noqa: E402
from psa_core.pictures import density_picture, levels_picture  # noqa: E402

LAYERS = 4
FILES = {"dense.mp4", "psa.mp4", "side_by_side.mp4", "levels.png", "density.png", "report.json"}


def small(output: Path) -> DemoSettings:
    return DemoSettings(output=output, steps=3, frames=9, width=192, height=96, seed=5)


def test_writes_every_file_and_says_in_one_line_what_it_did(tmp_path: Path) -> None:
    line = run_demo(small(tmp_path / "new" / "folder"))
    output = tmp_path / "new" / "folder"
    assert {file.name for file in output.iterdir()} == FILES
    assert "\n" not in line
    report = json.loads((output / "report.json").read_text())
    assert f"density {report['density']:.3f}" in line
    assert f"relative error of the latents {report['relative_error_of_latents']:.3f}" in line
    assert report["dense_calls"] == {"warm-up": LAYERS}
    assert [(x["step"], x["layer"]) for x in report["sparse_calls"]] == [(s, n) for s in (1, 2) for n in range(LAYERS)]
    assert 0 < report["density"] < 1
    assert 0 < report["relative_error_of_latents"] < 0.5
    for name, height, width in (("dense", 96, 192), ("psa", 96, 192), ("side_by_side", 128, 400)):
        assert iio.imread(output / f"{name}.mp4", plugin="FFMPEG").shape == (9, height, width, 3)
    for name in ("levels", "density"):
        assert np.ptp(iio.imread(output / f"{name}.png")) > 100


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    def numbers() -> dict:
        run_demo(DemoSettings(output=tmp_path, steps=2, frames=5, width=96, height=96, seed=3))
        report = json.loads((tmp_path / "report.json").read_text())
        return {key: report[key] for key in ("density", "relative_error_of_latents", "sparse_calls")}

    first = numbers()
    assert numbers() == first


def test_the_tiny_pipeline_depends_on_its_seed_only() -> None:
    random_state = torch.random.get_rng_state()
    weights = [tiny_pipeline(seed)[0].transformer.blocks[0].attn1.to_q.weight for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_with_guidance_both_passes_of_a_step_are_counted_and_run_after_run_agrees() -> None:
    pipeline, embeddings = tiny_pipeline(0)
    pipeline.set_progress_bar_config(disable=True)
    config = PSAConfig(block_n=32, min_tokens=0, warmup_steps=1)

    def latents() -> torch.Tensor:
        return pipeline(
            prompt_embeds=embeddings,
            negative_prompt_embeds=-embeddings,
            guidance_scale=3.0,
            width=96,
            height=64,
            num_frames=9,
            num_inference_steps=3,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).frames

    dense = latents()
    with patch(pipeline, config, backend="torch") as handle:
        for sparse in (latents(), latents()):
            assert handle.report.dense_reasons == {"warm-up": 2 * LAYERS}
            assert handle.report.sparse_count == 2 * 2 * LAYERS
            assert torch.isfinite(sparse).all()
            assert not torch.equal(sparse, dense)
    assert torch.equal(latents(), dense)


def test_attention_matters_to_the_tiny_model() -> None:
    """A map that keeps a few blocks only must change the picture, or the demo would show nothing."""
    pipeline, embeddings = tiny_pipeline(0)
    transformer = pipeline.transformer
    inputs = {"hidden_states": torch.randn(1, 3, 5, 24, 24), "encoder_hidden_states": embeddings}
    few = PSAConfig(block_n=32, mask_ratios={1: (0, 0.05), 0: (0.05, 1)}, mask_mode="topk", min_tokens=0)
    with torch.no_grad():
        dense = transformer(timestep=torch.ones(1), return_dict=False, **inputs)[0]
        with patch(transformer, few, backend="torch"):
            sparse = transformer(timestep=torch.ones(1), return_dict=False, **inputs)[0]
    assert torch.isfinite(dense).all()
    assert (sparse - dense).norm() > 0.05 * dense.norm()


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("steps", 1, "2 or more"),
        ("frames", 32, "a multiple of 4 and one more"),
        ("frames", 1, "a multiple of 4 and one more"),
        ("width", 100, "a multiple of 16"),
        ("height", 16, "a multiple of 16, 32 or more"),
        ("seed", -1, "0 to"),
    ],
)
def test_a_setting_that_is_not_allowed_is_named(option: str, value: int, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option} = {value}: must be .*{allowed}"):
        DemoSettings(**{option: value})


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
                report.add_sparse(step, layer, torch.tensor(0.25), levels)
    levels_picture(report, tmp_path / "levels.png")
    density_picture(report, tmp_path / "density.svg")
    assert {file.name for file in tmp_path.iterdir()} == {"levels.png", "density.svg"}
