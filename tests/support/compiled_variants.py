"""What a run has Triton compile for ten lengths, on a GPU that is not there; one JSON object a way to run it.

``ahead`` counts what is compiled before the first call, ``later`` what the ten calls find not compiled, by kernel.
Runs in a process of its own, because Triton's interpreter and its compiler do not share one. Triton says what it would
compile; nothing is compiled, and no kernel runs.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

sys.path.insert(0, str(Path(__file__).parents[2]))

from psa_core import PSAConfig, pyramid_sparse_attention
from psa_core.hosts import rehearsal
from psa_core.hosts.kept import Kept
from psa_core.hosts.place import Place
from psa_core.ops import compiling
from psa_core.ops.attention import triton as attention
from psa_core.settings.sinks import text_in_front

# Odd ones, and multiples of 2, 4, 8, 16, 32 and 128; in blocks of 32 from 28 to 285 of them.
GRIDS = ((1, 17, 53), (2, 23, 25), (3, 14, 30), (4, 16, 32), (1, 43, 57), (7, 20, 24), (2, 37, 49), (8, 16, 32))
GRIDS += ((5, 33, 41), (10, 24, 38))
TEXT = 77
HEADS, GROUP, HEAD_DIM = 3, 2, 64
CAUSAL = PSAConfig(use_rearrange=False)
CALIBRATED = PSAConfig(mask_mode="calibrated", map_steps=4, block_n=32, candidate_orders=("Raster", "Rows"))
RUNS = {
    "fixed": (PSAConfig(block_n=32, rearrange_method="Rows"), TEXT),
    "capped": (PSAConfig(use_sim_mask=True, importance="mean", use_rearrange=False), 0),
    "calibrated": (CALIBRATED, 0),
    "int8": (CALIBRATED.replace(precision="int8"), TEXT),
}


class Recorder:
    """In place of what compiles ahead: notes which kernels Triton would compile, and compiles none."""

    threads = 8

    def __init__(self) -> None:
        self.met: set[Any] = set()
        self.new: dict[str, int] = {}
        # Told of a kernel that is not compiled yet; true leaves it so.
        knobs.runtime.jit_cache_hook = self._note

    def compile(self, kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        kernel.warmup(*args, grid=grid, **options)

    def _note(self, *, key: Any, fn: Any, **more: Any) -> bool:
        name = fn.name.rpartition(".")[2]
        if (name, key) not in self.met:
            self.met.add((name, key))
            self.new[name] = self.new.get(name, 0) + 1
        return True

    def of(self, run: Callable[[], None], threads: int) -> dict[str, int]:
        """How many a kernel were not met before."""
        self.threads, self.new = threads, {}
        run()
        return self.new


def tensors(tokens: int, *heads: int) -> list[torch.Tensor]:
    """In memory as models have them, in the dtype that the interpreter's refusals let through on a CPU."""
    return [torch.randn(1, tokens, h, HEAD_DIM, dtype=torch.float16).transpose(1, 2) for h in heads]


def run(config: PSAConfig, text: int, grid: tuple[int, int, int]) -> None:
    kept, sinks = Kept(), text_in_front(text)
    for step in range(3):
        place = Place(step, 0, grid, sinks, steps=3)
        q, k, v = tensors(math.prod(grid) + text, HEADS, HEADS, HEADS)
        kept.attend(q, k, v, config.replace(text_length=text), place, "triton", last=step == 2)


def read_prompt(tokens: int) -> None:
    q, k, v = tensors(tokens, GROUP * HEADS, HEADS, HEADS)
    pyramid_sparse_attention(q, k, v, CAUSAL, backend="triton", causal=True)


def counts(recorder: Recorder) -> Iterator[dict[str, Any]]:
    """What is compiled ahead of each way to run, and later for ten lengths."""
    for name, (config, text) in RUNS.items():
        (q,) = tensors(1, HEADS)
        ahead = recorder.of(lambda c=config, t=text, q=q: rehearsal.rehearse(q, c, "triton", t > 0), 8)
        later = recorder.of(lambda c=config, t=text: [run(c, t, grid) for grid in GRIDS], 1)
        yield {"way": name, "block_n": config.block_n, "ahead": ahead, "later": later}
    (q,) = tensors(1, GROUP * HEADS)
    ahead = recorder.of(lambda: rehearsal.rehearse_prompt(q, GROUP, CAUSAL, "triton"), 8)
    later = recorder.of(lambda: [read_prompt(math.prod(grid)) for grid in GRIDS], 1)
    yield {"way": "causal", "block_n": CAUSAL.block_n, "ahead": ahead, "later": later}


def main() -> None:
    target = GPUTarget("cuda", 80, 32)
    driver.set_active(
        SimpleNamespace(
            get_current_device=lambda: 0, get_current_stream=lambda device: 0, get_current_target=lambda: target
        )
    )
    # Refusals take kernels that an interpreter runs on tensors of a CPU.
    attention.INTERPRETED = True
    recorder = compiling._thread.compiler = Recorder()

    @contextmanager
    def recording() -> Iterator[None]:
        yield

    rehearsal.compiling_ahead = recording
    torch.set_grad_enabled(False)
    for found in counts(recorder):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
