"""The demo from start to end."""

from __future__ import annotations

import json

from ...report.pictures.heat_maps import density_picture, levels_picture
from ...report.quality import Quality, measure_quality
from ...report.report import Report
from ...report.videos import side_by_side, write_video
from ...settings.errors import ConfigError
from ...settings.presets import config_to_schema
from ..compare.settings import DENSE_CONFIG
from ..generate.models import MODELS
from ..generate.pipeline import load_pipeline
from ..generate.sample import Made, sample
from ..output import make_output
from .settings import MODEL, DemoSettings


def run_demo(settings: DemoSettings) -> str:
    """Generate a video twice, dense and with PSA, and write videos, pictures and numbers.

    Writes ``dense.mp4``, ``psa.mp4``, ``side_by_side.mp4``, ``levels.png``, ``density.png`` and ``report.json``.

    Returns:
        One line for people: density, PSNR and SSIM of the video with PSA against the dense one, seconds.

    Raises:
        ConfigError: the output folder cannot be written, or no call would run sparse.
    """
    make_output(settings.output)
    plain = settings.generate(DENSE_CONFIG)
    pipeline = load_pipeline(plain)
    pipeline.set_progress_bar_config(desc="dense")
    dense = sample(pipeline, plain, settings.prompt)
    pipeline.set_progress_bar_config(desc="PSA")
    sparse = sample(pipeline, settings.generate(settings.config), settings.prompt, keep_levels=True)
    report = sparse.report
    assert report is not None
    if not report.sparse_count:
        raise ConfigError("--schedule, --radial", None, f"leave no call sparse: {report.line()}")
    quality = measure_quality(sparse.frames, dense.frames)
    density = report.density() or 1.0
    _write_videos(settings, dense, sparse, density)
    levels_picture(report, settings.output / "levels.png")
    density_picture(report, settings.output / "density.png")
    _write_report(settings, report, dense, sparse, quality)
    return (
        f"density {density:.3f} | PSNR {quality.mean_psnr:.1f} dB, SSIM {quality.mean_ssim:.3f} against dense | "
        f"dense {dense.seconds:.0f} s, PSA {sparse.seconds:.0f} s with plain torch, where time is not the point: "
        "the fast kernels need a GPU"
    )


def _write_videos(settings: DemoSettings, dense: Made, sparse: Made, density: float) -> None:
    rate = MODELS[MODEL].frames_per_second
    write_video(settings.output / "dense.mp4", dense.frames, rate)
    write_video(settings.output / "psa.mp4", sparse.frames, rate)
    both = side_by_side([dense.frames, sparse.frames], ["dense attention", f"PSA, density {density:.2f}"])
    write_video(settings.output / "side_by_side.mp4", both, rate)


def _write_report(settings: DemoSettings, report: Report, dense: Made, sparse: Made, quality: Quality) -> None:
    chosen = ("prompt", "steps", "frames", "width", "height", "seed")
    document = {
        "settings": {name: getattr(settings, name) for name in chosen},
        "config": config_to_schema(settings.config),
        "quality": quality.as_dict(),
        "seconds": {"dense": dense.seconds, "psa": sparse.seconds},
        **report.as_dict(),
    }
    (settings.output / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
