"""``psa demo``: dense attention, the dial and upstream's recipe on one clip of the bundled tiny model, on a CPU."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..settings.at_step import dense_places
from ..settings.config import PSAConfig
from ..settings.errors import ConfigError
from ..settings.files import write_json
from ..settings.preset_schema import config_to_schema
from ..settings.presets import bundled_dir
from ..settings.recipe import Recipe
from .compare.comparison_settings import DENSE, DENSE_CONFIG, CompareSettings
from .generate.models import MODELS
from .generate.options import (
    add_quality_option,
    check_packages,
    pace_of,
    read_config,
    read_family,
    read_generate_settings,
    read_model,
    read_quality,
)
from .generate.video_settings import GenerateSettings
from .options import add_sparsity_options

if TYPE_CHECKING:
    from ..report.quality import Quality
    from ..report.report import Report

OUTPUT = Path("psa-demo")
MODEL = "tiny_video"
UPSTREAM = "upstream's recipe"
_PROMPT = "a red circle moving left over gray stripes"
_NEEDS = ("diffusers", "transformers", "ftfy", "imageio_ffmpeg", "matplotlib", "skimage")
# What psa compare asks for, and the demo does not.
_GIVEN: dict[str, Any] = {
    "model": MODEL,
    "path": None,
    "prompt_file": None,
    "negative_prompt": None,
    "guidance": None,
    "lora": [],
    "prompts": [],
    "image": None,
    "cpu_offload": False,
    "presets_file": bundled_dir() / f"{MODEL}.yaml",
    "backend": "torch",
    "min_tokens": None,
    "precision": None,
    "dense_backend": None,
    "max_extra_memory": None,
}
_REPORTED = ("steps", "frames", "width", "height", "seed")
# Take about two minutes of one core; the 33 frames that the model was trained for would take five.
_STEPS, _FRAMES = 8, 17
_LINE = "{:<18}{:>8}{:>10}{:>8}{:>9}{:>9}"
_HEAD = _LINE.format("attention", "density", "PSNR", "SSIM", "flicker", "seconds")
_NOTES = (
    "",
    "Density is that of the sparse calls; PSNR, SSIM and flicker are against the dense video.",
    "One clip decides nothing: other prompts and seeds may turn the order round.",
    "Time is not the point here, with plain torch: the fast kernels need a GPU.",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa demo``."""
    facts = MODELS[MODEL]
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"the folder to write to; default: {OUTPUT}")
    parser.add_argument("--prompt", nargs=1, default=[_PROMPT], help=f"what to show; default: {_PROMPT}")
    for name, default, what in (
        ("steps", _STEPS, "denoising steps, the first of them dense"),
        ("frames", _FRAMES, "a multiple of 4 and one more"),
        ("width", facts.width, "pixels, a multiple of 16"),
        ("height", facts.height, "pixels, a multiple of 16"),
        ("seed", 0, "of the noise"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what}; default: {default}")
    add_quality_option(parser, default="balanced")
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
    """The settings of a command line: one clip, dense, with a quality, and with upstream's recipe at its density.

    Raises:
        ConfigError: an option is not allowed.
    """
    model = read_model(parsed)
    config = read_config(parsed, read_family(parsed, model), read_quality(parsed.quality), "--quality")
    warmup = dense_places(config, parsed.steps).start
    if 0 < parsed.steps <= warmup:
        raise ConfigError("--steps", parsed.steps, f"must be more than {warmup}: that many are dense")
    pace = pace_of(model.facts, parsed.quality)
    dense, dial, upstream = (
        read_generate_settings(parsed, model, name, attention, pace, parsed.seed)
        for name, attention in ((DENSE, DENSE_CONFIG), (parsed.quality, config), (UPSTREAM, _upstream(config)))
    )
    return CompareSettings(dense=dense, presets=(dial, upstream), seeds=(parsed.seed,), measure_errors=False)


def _upstream(dial: PSAConfig) -> PSAConfig:
    """What upstream's presets compute in every head, at the density, with the warm-up and the kept maps of the dial."""
    assert dial.target_density is not None
    recipe = Recipe(order="Gilbert", estimator="sampled_max", mix="pyramid", density=dial.target_density)
    return recipe.config(dial.replace(target_density=None))


def run_demo(settings: CompareSettings) -> str:
    """Make the clip with all three attentions, and write videos, pictures and numbers.

    Writes ``dense.mp4``, ``psa.mp4``, ``upstream.mp4``, ``side_by_side.mp4``, ``levels.png``, ``density.png`` and
    ``report.json``; pictures are of the quality's run, and so is what the report does not have under ``upstream``.

    Returns:
        A table for people: density of the sparse calls, PSNR, SSIM and flicker against the dense video, seconds.

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

    output, (dial, upstream), (clip,) = settings.output, settings.presets, settings.clips
    make_output(output)
    sampler = Sampler(load_pipeline(dial), settings)
    made = [sampler.video(attention, clip, keep_levels=attention is dial) for attention in settings.attentions]
    videos = [each.frames for each in made]
    report, other = (_sparse(each.report) for each in made[1:])
    quality, other_quality = (measure_quality(video, videos[0]) for video in videos[1:])
    rows = [
        _Row("dense attention", 1.0, None, made[0].seconds),
        _Row(dial.preset, report.density() or 1.0, quality, made[1].seconds),
        _Row(UPSTREAM, other.density() or 1.0, other_quality, made[2].seconds),
    ]
    for name, video in zip(("dense", "psa", "upstream"), videos, strict=True):
        write_video(output / f"{name}.mp4", video, dial.facts.frames_per_second)
    together = side_by_side(videos, [row.title for row in rows])
    write_video(output / "side_by_side.mp4", together, dial.facts.frames_per_second)
    levels_picture(report, output / "levels.png")
    density_picture(report, output / "density.png")
    document = {
        "settings": {"prompt": clip.prompt, **{name: getattr(dial, name) for name in _REPORTED}},
        **_numbers(dial, quality, report),
        "upstream": _numbers(upstream, other_quality, other),
    }
    write_json(output / "report.json", document)
    return "\n".join([_HEAD, *(row.line for row in rows), *_NOTES])


class _Row(NamedTuple):
    """What one attention came to; ``quality`` is against the dense video, None for that itself."""

    name: str
    density: float
    quality: Quality | None
    seconds: float

    @property
    def title(self) -> str:
        return self.name if self.quality is None else f"{self.name}, density {self.density:.2f}"

    @property
    def line(self) -> str:
        cells = ["", "", ""]
        if self.quality is not None:
            flicker = "" if self.quality.flicker is None else f"{self.quality.flicker:.3f}"
            cells = [f"{self.quality.mean_psnr:.1f} dB", f"{self.quality.mean_ssim:.3f}", flicker]
        return _LINE.format(self.name, f"{self.density:.3f}", *cells, f"{self.seconds:.0f}")


def _sparse(report: Report | None) -> Report:
    """A report of a run that had sparse calls.

    Raises:
        ConfigError: it had none.
    """
    assert report is not None
    if not report.sparse_count:
        raise ConfigError("--schedule, --radial", None, f"leave no call sparse: {report.line()}")
    return report


def _numbers(settings: GenerateSettings, quality: Quality, report: Report) -> dict[str, Any]:
    return {"config": config_to_schema(settings.config), "quality": quality.as_dict(), **report.as_dict()}
