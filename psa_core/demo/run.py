"""The demo from start to end."""

from __future__ import annotations

import json

from ..errors import ConfigError
from ..hosts.diffusers import patch
from ..output import make_output
from ..pictures import density_picture, levels_picture
from ..presets import config_to_schema
from ..report import Report
from ..videos import side_by_side, write_video
from .generate import Video, generate
from .settings import DemoSettings
from .tiny_model import tiny_pipeline

_FRAMES_PER_SECOND = 12


def run_demo(settings: DemoSettings) -> str:
    """Generate a video twice, dense and with PSA, and write videos, pictures and numbers.

    Writes ``dense.mp4``, ``psa.mp4``, ``side_by_side.mp4``, ``levels.png``, ``density.png`` and ``report.json``.

    Returns:
        One line for people: density, relative error of the latents, seconds.

    Raises:
        ConfigError: the output folder cannot be written, or no call would run sparse.
    """
    make_output(settings.output)
    pipeline, embeddings = tiny_pipeline(settings.seed)
    dense = generate(pipeline, embeddings, settings, "dense")
    with patch(pipeline, settings.config, backend="torch", keep_levels=True) as handle:
        sparse = generate(pipeline, embeddings, settings, "PSA")
    if not handle.report.sparse_count:
        raise ConfigError("--schedule, --radial", None, f"leave no call sparse: {handle.report.line()}")
    error = float((sparse.latents - dense.latents).norm() / dense.latents.norm())
    density = handle.report.density() or 1.0
    _write_videos(settings, dense, sparse, density)
    levels_picture(handle.report, settings.output / "levels.png")
    density_picture(handle.report, settings.output / "density.png")
    _write_report(settings, handle.report, dense, sparse, error)
    return (
        f"density {density:.3f} | relative error of the latents {error:.3f} | dense {dense.seconds:.1f} s, "
        f"PSA {sparse.seconds:.1f} s on the CPU, where time is not the point: the fast kernels need a GPU"
    )


def _write_videos(settings: DemoSettings, dense: Video, sparse: Video, density: float) -> None:
    both = side_by_side((dense.frames, sparse.frames), ("dense attention", f"PSA, density {density:.2f}"))
    for name, frames in (("dense", dense.frames), ("psa", sparse.frames), ("side_by_side", both)):
        write_video(settings.output / f"{name}.mp4", frames, _FRAMES_PER_SECOND)


def _write_report(settings: DemoSettings, report: Report, dense: Video, sparse: Video, error: float) -> None:
    document = {
        "settings": {name: getattr(settings, name) for name in ("steps", "frames", "width", "height", "seed")},
        "config": config_to_schema(settings.config),
        "relative_error_of_latents": error,
        "cpu_seconds": {"dense": dense.seconds, "psa": sparse.seconds},
        **report.as_dict(),
    }
    (settings.output / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
