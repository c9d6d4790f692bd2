"""``psa demo``: a small ``psa compare`` of the bundled tiny model, dense attention and PSA, on a CPU."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..settings.at_step import dense_places
from ..settings.errors import ConfigError
from ..settings.files import write_json
from ..settings.preset_schema import config_to_schema
from ..settings.presets import bundled_dir
from .compare.comparison_settings import DENSE, DENSE_CONFIG, CompareSettings
from .generate.models import MODELS
from .generate.options import (
    add_quality_option,
    check_packages,
    pace_of,
    read_config,
    read_family,
    read_generate_settings,
    read_quality,
)
from .options import add_sparsity_options

OUTPUT = Path("psa-demo")
MODEL = "tiny_video"
_PROMPT = "a red circle moving left over gray stripes"
_NEEDS = ("diffusers", "transformers", "ftfy", "imageio_ffmpeg", "matplotlib", "skimage")
# What psa compare asks for, and the demo does not.
_GIVEN = {
    "model": MODEL,
    "path": None,
    "prompt_file": None,
    "negative_prompt": None,
    "guidance": None,
    "lora": None,
    "cpu_offload": False,
    "presets_file": bundled_dir() / f"{MODEL}.yaml",
    "backend": "torch",
    "min_tokens": None,
}
_REPORTED = ("steps", "frames", "width", "height", "seed")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa demo``."""
    facts = MODELS[MODEL]
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"the folder to write to; default: {OUTPUT}")
    parser.add_argument("--prompt", nargs=1, default=[_PROMPT], help=f"what to show; default: {_PROMPT}")
    for name, default, what in (
        ("steps", 8, "denoising steps, the first of them dense"),
        ("frames", facts.frames, "a multiple of 4 and one more"),
        ("width", facts.width, "pixels, a multiple of 16"),
        ("height", facts.height, "pixels, a multiple of 16"),
        ("seed", 0, "of the noise"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what}; default: {default}")
    add_quality_option(parser)
    add_sparsity_options(parser)
    parser.set_defaults(run=run_command, **_GIVEN)


def run_command(parsed: argparse.Namespace) -> None:
    """What ``psa demo`` does.

    Raises:
        ConfigError, ImportError: something that the user can set right.
    """
    settings = read_settings(parsed)
    check_packages(parsed, "demo", _NEEDS)
    print(run_demo(settings))
    print(f"videos and pictures are in {settings.output}")


def read_settings(parsed: argparse.Namespace) -> CompareSettings:
    """The settings of a command line: one clip, dense and with the model's default preset or a quality.

    Raises:
        ConfigError: an option is not allowed.
    """
    family = read_family(parsed)
    preset = family.default if parsed.quality is None else read_quality(parsed.quality)
    config = read_config(parsed, family, preset, "--quality")
    warmup = dense_places(config, parsed.steps).start
    if parsed.steps <= warmup:
        raise ConfigError("--steps", parsed.steps, f"must be more than {warmup}: that many are dense")
    pace = pace_of(MODEL, preset)
    dense, psa = (
        read_generate_settings(parsed, name, attention, pace, parsed.seed)
        for name, attention in ((DENSE, DENSE_CONFIG), ("PSA", config))
    )
    return CompareSettings(dense=dense, presets=(psa,), seeds=(parsed.seed,), measure_errors=False)


def run_demo(settings: CompareSettings) -> str:
    """Make the clip dense and with PSA, and write videos, pictures and numbers.

    Writes ``dense.mp4``, ``psa.mp4``, ``side_by_side.mp4``, ``levels.png``, ``density.png`` and ``report.json``.

    Returns:
        One line for people: density, PSNR and SSIM of the video with PSA against the dense one, seconds.

    Raises:
        ConfigError: the output folder cannot be written, or no call would run sparse.
    """
    # The command line is read without the packages that these need.
    from ..report.pictures.heat_maps import density_picture, levels_picture
    from ..report.quality import measure_quality
    from ..report.videos import side_by_side, write_video
    from .compare.sampler import Sampler
    from .generate.files import make_output
    from .generate.pipeline import load_pipeline

    output, (psa,), (clip,) = settings.output, settings.presets, settings.clips
    make_output(output)
    sampler = Sampler(load_pipeline(psa), settings)
    dense, sparse = (sampler.video(attention, clip, keep_levels=True) for attention in settings.attentions)
    report = sparse.report
    assert report is not None
    if not report.sparse_count:
        raise ConfigError("--schedule, --radial", None, f"leave no call sparse: {report.line()}")
    quality, density = measure_quality(sparse.frames, dense.frames), report.density() or 1.0
    both = side_by_side([dense.frames, sparse.frames], ["dense attention", f"PSA, density {density:.2f}"])
    for name, frames in (("dense", dense.frames), ("psa", sparse.frames), ("side_by_side", both)):
        write_video(output / f"{name}.mp4", frames, psa.facts.frames_per_second)
    levels_picture(report, output / "levels.png")
    density_picture(report, output / "density.png")
    document = {
        "settings": {"prompt": clip.prompt, **{name: getattr(psa, name) for name in _REPORTED}},
        "config": config_to_schema(psa.config),
        "quality": quality.as_dict(),
        **report.as_dict(),
    }
    write_json(output / "report.json", document)
    return (
        f"density {density:.3f} | PSNR {quality.mean_psnr:.1f} dB, SSIM {quality.mean_ssim:.3f} against dense | "
        f"dense {dense.seconds:.0f} s, PSA {sparse.seconds:.0f} s with plain torch, where time is not the point: "
        "the fast kernels need a GPU"
    )
