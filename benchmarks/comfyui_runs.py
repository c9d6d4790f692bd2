"""Whole sampler runs in ComfyUI, dense and patched: seconds and memory. ``python -m benchmarks.comfyui_runs COMFYUI``.

Runs ComfyUI in this process, whose Python must have its requirements and a CUDA GPU. Weights are random, in the shapes
of the published models: quotas (``mask_mode: topk``), the dial and masks take the time that they take on trained ones,
bounds on importance do not. Text encoder and autoencoder are no part of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from psa_core import load_preset
from psa_core.apps.bench.results import Machine, file_stem
from psa_core.apps.bench.table import markdown
from psa_core.settings.files import write_json

from .gpu import need_gpu

GIB = 1 << 30
_SEED = 7
_TEXT_SCALE, _WEIGHT_SCALE, _BIAS_SCALE = 0.1, 0.02, 0.01


@dataclass(frozen=True)
class Patched:
    """What a patched run has.

    Attributes:
        preset: of the model's family; its warm-up gives way to the clip's ``dense_steps``.
        dense_backend: of the steps and calls that stay dense.
        density: in place of the preset's target; None for that.
    """

    preset: str
    dense_backend: str = "model"
    density: float | None = None

    @property
    def name(self) -> str:
        density = "" if self.density is None else f" at {self.density:.2f}"
        dense = "" if self.dense_backend == "model" else f", dense calls by {self.dense_backend}"
        return f"{self.preset}{density}{dense}"


@dataclass(frozen=True)
class Clip:
    """A model and what it samples.

    Attributes:
        model: name of its shape in :data:`MODELS`.
        size: width, height and frames of the video.
        steps: of the whole denoising.
        dense_steps: of them, at the start, those that stay dense in patched runs.
        guided: whether there is a negative prompt (cfg 5), or none (cfg 1, as with distilled LoRAs).
        patched: its runs beside the dense one.
    """

    model: str
    size: tuple[int, int, int]
    steps: int
    dense_steps: int
    guided: bool
    patched: tuple[Patched, ...]


# The dial as it stands untouched, and beside the fastest dense attention.
_DIAL = (Patched("auto_balanced"), Patched("auto_balanced", "cudnn"))
_FEW_STEPS = (Patched("psa_few_steps"), Patched("auto_balanced"))
CLIPS = (
    Clip("Wan2.1_1.3b", (1280, 720, 69), 20, 5, True, (Patched("auto_balanced", density=0.10),)),
    Clip("Wan2.1_1.3b", (1280, 720, 81), 20, 5, True, (Patched("psa_topk"), *_DIAL)),
    Clip("Wan2.1_1.3b", (832, 480, 81), 20, 5, True, (Patched("psa_topk"), *_DIAL)),
    Clip("Wan2.1_14b", (832, 480, 81), 4, 1, False, _FEW_STEPS),
    Clip("Wan2.1_14b", (1280, 720, 81), 4, 1, False, _FEW_STEPS),
    Clip("Wan2.1_14b", (1280, 720, 81), 2, 0, True, _FEW_STEPS),
    Clip("CogVideo_5b", (720, 480, 49), 20, 5, True, (Patched("psa_4steps"), *_DIAL)),
)
DENSE = "dense"


@dataclass(frozen=True)
class Run:
    """What one run took.

    Attributes:
        attention: :data:`DENSE`, as ComfyUI chooses it, or what the patch had.
        first_seconds: one step before it, in which kernels are compiled and weights loaded.
        seconds: the whole run.
        step_seconds: of each of its steps.
        memory: peak GiB on the GPU beyond the weights.
        choosing: seconds of it in which calibration chose recipes and measured errors; None without any.
        line: what the patch said.
    """

    clip: Clip
    tokens: int
    attention: str
    first_seconds: float
    seconds: float
    step_seconds: tuple[float, ...]
    memory: float
    choosing: float | None = None
    line: str = ""

    @property
    def typical_step(self) -> float:
        """Mean seconds of a step, of those that are sparse if any is; the first of them chooses and is left out."""
        first = 0 if self.attention == DENSE else self.clip.dense_steps
        return statistics.mean(self.step_seconds[first + 1 :])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, and keep it as JSON.

    Raises:
        RuntimeError: a run gave something else than numbers, or the patch ran nothing sparse.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comfyui_runs", description=__doc__)
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder")
    names = sorted({clip.model for clip in CLIPS})
    parser.add_argument("--models", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--width", type=int, nargs="+", help="clips of these widths alone")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parsed = parser.parse_args(argv)
    if not (parsed.comfyui / "comfy").is_dir():
        parser.error(f"{parsed.comfyui} is not ComfyUI's folder")
    need_gpu(parser)
    sys.path.insert(0, str(parsed.comfyui.resolve()))
    widths = parsed.width or [clip.size[0] for clip in CLIPS]
    clips = [clip for clip in CLIPS if clip.model in parsed.models and clip.size[0] in widths]
    machine = Machine.here()
    file = parsed.output / f"{file_stem(machine.gpu, 'comfyui')}.json"
    runs: list[Run] = []
    for run in tqdm(chain(*map(measure, clips)), total=sum(1 + len(clip.patched) for clip in clips), unit="run"):
        runs.append(run)
        document = {"machine": dataclasses.asdict(machine), "runs": [dataclasses.asdict(run) for run in runs]}
        write_json(file, document)
    print(f"\n{machine.gpu}, {machine.date}, torch {machine.torch}\n\n{run_table(runs)}\n\nresults are in {file}")


def run_table(runs: Sequence[Run]) -> str:
    """Patched runs in Markdown, each with the ratios to the dense one before it."""
    rows = []
    for run in runs:
        if run.attention == DENSE:
            dense = run
            continue
        clip = run.clip
        width, height, frames = clip.size
        rows.append(
            (
                clip.model,
                f"{width} x {height}, {frames} frames ({run.tokens:,} tokens)",
                f"{clip.steps}, {'cfg 5' if clip.guided else 'cfg 1'}",
                f"{run.attention}, {clip.dense_steps} dense",
                f"{dense.seconds:.0f} s",
                f"{run.seconds:.0f} s (first step {run.first_seconds:.0f} s)",
                f"{dense.seconds / run.seconds:.2f}x",
                f"{dense.typical_step:.2f} / {run.typical_step:.2f} s",
                f"{dense.typical_step / run.typical_step:.2f}x",
                "" if run.choosing is None else f"{run.choosing / run.seconds:.2%}",
                f"{dense.memory:.1f} / {run.memory:.1f} GiB",
            )
        )
    titles = (
        "model", "clip", "steps", "preset", "dense", "PSA", "faster", "a step, dense / sparse", "faster",
        "choosing", "memory, dense / PSA",
    )  # fmt: skip
    return markdown(titles, rows)


def measure(clip: Clip) -> Iterator[Run]:
    """A run dense and runs patched, each after a step of its own, of a model that is loaded for them."""
    from psa_core.hosts.comfyui import patch_model

    with _loaded(clip) as model:
        first, run = _sample(model, clip, 1), _sample(model, clip, clip.steps)
        yield Run(clip, _tokens(clip), DENSE, first[0], *run)
        for settings in clip.patched:
            first = _sample(patch_model(model, _patch(model, clip, settings, 0)), clip, 1)
            patch = _patch(model, clip, settings, clip.dense_steps)
            run = _sample(patch_model(model, patch), clip, clip.steps)
            [report] = patch.last_prompt.reports
            if not report.sparse_count:
                raise RuntimeError(f"{clip.model}: nothing ran sparse: {report.line()}")
            choosing = report.seconds().calibration
            yield Run(clip, _tokens(clip), settings.name, first[0], *run, choosing, report.line())


def _patch(model: Any, clip: Clip, settings: Patched, dense_steps: int) -> Any:
    from psa_core.hosts.comfyui import Patch, recognise

    video = recognise(model.model)
    if video is None:
        raise RuntimeError(f"{clip.model} is not recognised")
    config = load_preset(clip.model, settings.preset)
    config = config.replace(min_tokens=0, warmup_steps=dense_steps, dense_backend=settings.dense_backend)
    if settings.density is not None:
        config = config.replace(target_density=settings.density)
    return Patch(config, "triton", video)


def _latent(clip: Clip) -> tuple[int, ...]:
    width, height, frames = clip.size
    return 1, 16, (frames - 1) // 4 + 1, height // 8, width // 8


def _tokens(clip: Clip) -> int:
    _, _, frames, height, width = _latent(clip)
    text = COGVIDEOX_TEXT if clip.model.startswith("Cog") else 0
    return text + frames * (height // 2) * (width // 2)


@torch.inference_mode()
def _sample(model: Any, clip: Clip, steps: int) -> tuple[float, tuple[float, ...], float]:
    """Seconds of one sampler run and of its steps, and its peak GiB beyond the weights."""
    import comfy.sample

    latent = torch.zeros(_latent(clip))
    noise = comfy.sample.prepare_noise(latent, _SEED)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    ends: list[float] = []

    def end_step(*_: object) -> None:
        torch.cuda.synchronize()
        ends.append(time.perf_counter())

    start = time.perf_counter()
    out = comfy.sample.sample(
        model, noise, steps, 5.0 if clip.guided else 1.0, "euler", "simple", _text(clip, 1), _text(clip, 2),
        latent, seed=_SEED, callback=end_step, disable_pbar=True,
    )  # fmt: skip
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    if not out.isfinite().all():
        raise RuntimeError(f"{clip.model}: the run gave something else than numbers")
    steps_took = tuple(end - begin for begin, end in pairwise([start, *ends]))
    return seconds, steps_took, (torch.cuda.max_memory_allocated() - model.loaded_size()) / GIB


def _text(clip: Clip, seed: int) -> list[Any]:
    tokens = COGVIDEOX_TEXT if clip.model.startswith("Cog") else WAN_TEXT
    text = torch.randn(1, tokens, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed))
    return [[text * _TEXT_SCALE, {}]]


WAN_TEXT, COGVIDEOX_TEXT, TEXT_WIDTH = 512, 226, 4096


def _wan(dim: int, ffn_dim: int, heads: int, layers: int) -> Callable[..., Any]:
    def build(**where: Any) -> Any:
        from comfy.ldm.wan.model import WanModel

        return WanModel(
            "t2v", dim=dim, ffn_dim=ffn_dim, num_heads=heads, num_layers=layers, text_dim=TEXT_WIDTH, **where
        )

    return build


def _cogvideox_5b(**where: Any) -> Any:
    from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True, **where
    )


MODELS: dict[str, Callable[..., Any]] = {
    "Wan2.1_1.3b": _wan(1536, 8960, 12, 30),
    "Wan2.1_14b": _wan(5120, 13824, 40, 40),
    "CogVideo_5b": _cogvideox_5b,
}


@contextmanager
def _loaded(clip: Clip) -> Iterator[Any]:
    """The model with random weights, as ComfyUI loads one; afterwards its memory is free."""
    import comfy.model_management
    import comfy.ops
    import comfy.sd

    empty = MODELS[clip.model](device="meta", dtype=torch.bfloat16, operations=comfy.ops.disable_weight_init)
    generator = torch.Generator("cuda").manual_seed(_SEED)
    weights = {name: _weight(name, x.shape, generator) for name, x in empty.state_dict().items()}
    model = comfy.sd.load_diffusion_model_state_dict(weights)
    del weights
    try:
        yield model
    finally:
        comfy.model_management.unload_all_models()
        del model
        gc.collect()
        torch.cuda.empty_cache()


def _weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if "norm" in name and name.endswith("weight") and len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16, device="cuda")
    scale = _WEIGHT_SCALE if len(shape) > 1 else _BIAS_SCALE
    return torch.randn(shape, generator=generator, dtype=torch.bfloat16, device="cuda") * scale


if __name__ == "__main__":
    main()
