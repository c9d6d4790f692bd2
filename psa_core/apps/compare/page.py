"""The page of a comparison, which opens from disk and needs nothing from the net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...settings.files import write_text
from .files import NUMBERS
from .results import ClipResult, Comparison, Take
from .table import columns, notes, number_text, psnr_text, rows

_FOLDER = Path(__file__).parent


def write_page(comparison: Comparison) -> None:
    """Write ``index.html`` into the folder of the comparison."""
    # Prompts and presets are other people's texts.
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.jinja").render(
        facts=_facts(comparison),
        columns=columns(comparison),
        rows=rows(comparison),
        notes=notes(comparison),
        clips=[_clip(result) for result in comparison.clips],
        missing=len(comparison.settings.clips) - len(comparison.clips),
        with_lpips=comparison.with_lpips,
        pictures=comparison.pictures,
        failures=comparison.failures,
        model=comparison.settings.dense.model,
        numbers=NUMBERS,
    )
    write_text(comparison.settings.output / "index.html", text)


def _facts(comparison: Comparison) -> dict[str, str]:
    """What the videos were made with."""
    dense = comparison.settings.dense
    facts = {
        "Video": f"{dense.width} x {dense.height}, {dense.frames} frames"
        if dense.frames
        else "the pipeline's own size",
        "Denoising": f"{dense.steps} steps, guidance {dense.guidance:g}",
        "Machine": comparison.gpu or "CPU",
        "Dense attention": comparison.dense_attention,
    }
    if dense.loras:
        facts["LoRA"] = ", ".join(lora.said for lora in dense.loras)
    if dense.image is not None:
        facts["Picture"] = dense.image.name
    return facts


def _clip(result: ClipResult) -> dict[str, Any]:
    """A clip as texts."""
    takes = [_take(take) for take in result.takes]
    return {"prompt": result.clip.prompt, "seed": result.clip.seed, "video": result.video, "takes": takes}


def _take(take: Take) -> dict[str, str]:
    quality = take.quality
    psnr, ssim, flicker, lpips = (
        (None, None, None, None)
        if quality is None
        else (quality.mean_psnr, quality.mean_ssim, quality.flicker, quality.mean_lpips)
    )
    return {
        "preset": take.preset,
        "line": take.line,
        "seconds": number_text(take.seconds, "{:.1f} s"),
        "psnr": psnr_text(psnr),
        "ssim": number_text(ssim, "{:.4f}"),
        "flicker": number_text(flicker, "{:.3f}"),
        "lpips": number_text(lpips, "{:.4f}"),
    }
