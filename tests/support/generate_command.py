"""``psa generate`` with tiny random models of every family."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from psa_core.apps.cli import main
from psa_core.apps.generate.command import add_options, read_settings
from psa_core.apps.generate.pipeline import load_pipeline

WIDTH, HEIGHT, FRAMES, STEPS = 192, 128, 9, 3
SIZE = ["--width", str(WIDTH), "--height", str(HEIGHT), "--frames", str(FRAMES), "--steps", str(STEPS)]
SPARSE = ["--backend", "torch", "--min-tokens", "0", "--schedule", "warmup=1"]
FOX = "A red fox, in the snow"
FOLDERS = {
    "Wan2.1_1.3b": "wan_2_1",
    "Wan2.1_14b": "wan_2_1",
    "Wan2.2_5B": "wan_2_2_5b",
    "Wan2.2_A14B": "wan_2_2_a14b",
    "CogVideo_2b": "cogvideox_2b",
    "CogVideo_5b": "cogvideox_5b",
    "CogVideo1.5_5b": "cogvideox1_5",
}
# Wan runs each step twice, with and without the prompt; CogVideoX puts both into one batch.
PASSES = {model: 2 if model.startswith("Wan") else 1 for model in FOLDERS}


class Generate:
    """``psa generate`` with a tiny model, writing to a folder, or each run to one inside of it."""

    def __init__(self, weights: Path, output: Path) -> None:
        self.weights, self.output = weights, output
        self._runs = 0

    def __call__(self, model: str, *words: str, prompt: str = FOX) -> int:
        return main(self.command(model, *words, prompt=prompt))

    def apart(self, model: str, *words: str, prompt: str = FOX) -> int:
        """The same in a folder of its own, after those before."""
        self._runs += 1
        return main(self.command(model, *words, "--output", str(self.output / f"{self._runs:02d}"), prompt=prompt))

    def command(self, model: str, *words: str, prompt: str = FOX) -> list[str]:
        """Arguments of ``psa``."""
        prompts = ["--prompt", prompt] if prompt else []
        path = ["--path", str(self.weights / FOLDERS[model]), "--output", str(self.output)]
        return ["generate", "--model", model, *path, *SIZE, *prompts, *words]

    def pipeline(self, model: str, *words: str) -> Any:
        """The pipeline that the command would run."""
        parser = argparse.ArgumentParser()
        add_options(parser)
        path = ["--path", str(self.weights / FOLDERS[model])]
        return load_pipeline(read_settings(parser.parse_args(["--model", model, *path, "--prompt", FOX, *words])))

    def names(self) -> list[str]:
        return sorted(file.name for file in self.output.rglob("[!.]*") if file.is_file())

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(self.output.rglob("*.json"))]

    def videos(self) -> list[bytes]:
        return [file.read_bytes() for file in sorted(self.output.rglob("*.mp4"))]


def errors(err: str) -> list[str]:
    """Lines of the command's own, without progress bars."""
    return [line for line in err.splitlines() if line.startswith("psa: ")]
