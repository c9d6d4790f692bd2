"""``python -m research.tiny_video.training``, or ``torchrun --nproc-per-node 4 -m research.tiny_video.training``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from psa_core.models.tiny_video.files import AUTOENCODER, TRANSFORMER
from psa_core.models.tiny_video.model import load_autoencoder, load_transformer
from psa_core.settings.files import write_json

from ..clips import draw_whole, random_scenes
from . import gpus
from .autoencoder import peak_signal_to_noise, train_autoencoder
from .curve import draw_curve
from .export import export_autoencoder, export_transformer
from .latents import Bank
from .samples import sample, score, scored_words
from .scale import to_wan_scale
from .transformer import train_transformer
from .whole_clip import encode

# Clips that the scale of latents is measured on, and clips that the autoencoder is judged by.
_MEASURED, _JUDGED = 32, 8


def main(arguments: list[str] | None = None) -> None:
    """Train both networks, write them with their loss curve, and see what they can do."""
    options = _options().parse_args(arguments)
    gpus.join()
    losses: dict[str, list[torch.Tensor]] = {"autoencoder": [], "transformer": []}
    start = None
    if options.go_on_from is None:
        autoencoder = train_autoencoder(options.autoencoder_steps, options.seed, losses["autoencoder"])
        to_wan_scale(autoencoder, _latents(autoencoder, options.measured))
    else:
        autoencoder = load_autoencoder(options.go_on_from).to(gpus.device())
        start = load_transformer(folder=options.go_on_from).state_dict()
    autoencoder.requires_grad_(False)
    bank = Bank(autoencoder, options.clips, options.seed + 1)
    transformer = train_transformer(bank, options.transformer_steps, options.seed, losses["transformer"], start)
    if gpus.rank() == 0:
        _write(options, autoencoder, transformer, losses)
    gpus.wait()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the tiny video model.")
    parser.add_argument("--output", type=Path, default=Path("tiny-video"), help="the folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--autoencoder-steps", type=int, default=2200)
    parser.add_argument("--transformer-steps", type=int, default=5000)
    parser.add_argument("--clips", type=int, default=4096, help="whose latents are kept, over all GPUs")
    parser.add_argument("--measured", type=int, default=_MEASURED, help="clips that the latents' scale is measured on")
    parser.add_argument("--rounds", type=int, default=2, help="of 32 clips to score at the end")
    parser.add_argument("--go-on-from", type=Path, help="a folder with both networks: train its transformer further")
    return parser


@torch.no_grad()
def _latents(autoencoder: Any, count: int) -> torch.Tensor:
    """Latents of random clips, the same on every GPU, so that all get the same scale."""
    generator = torch.Generator(gpus.device()).manual_seed(count)
    clips = (draw_whole(random_scenes(1, generator)) for _ in range(count))
    return torch.cat([encode(autoencoder, clip)[0] for clip in clips])


def _write(
    options: argparse.Namespace, autoencoder: Any, transformer: Any, losses: dict[str, list[torch.Tensor]]
) -> None:
    folder = options.output
    export_autoencoder(autoencoder.state_dict(), folder / AUTOENCODER.name)
    export_transformer(transformer.state_dict(), folder / TRANSFORMER.name)
    curves = {name: torch.stack(values).tolist() for name, values in losses.items() if values}
    draw_curve(curves, folder / "loss.png")
    clips = draw_whole(random_scenes(_JUDGED, gpus.generator(options.seed + 2)))
    words = scored_words(options.rounds)
    found = {
        "autoencoder_psnr": [peak_signal_to_noise(autoencoder, clip[None]) for clip in clips],
        "score": score(sample(autoencoder, transformer.eval(), words, options.seed), words) if words else None,
    }
    write_json(folder / "training.json", {**found, "losses": curves})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
