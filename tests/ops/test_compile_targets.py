"""The kernels compile for every GPU they are meant for, fit its shared memory and spill nothing in their loops."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Shared memory that one block of threads may use, in KB, by compute capability or AMD's name.
SHARED_LIMITS = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99, "gfx942": 64, "gfx1201": 64}
# Bytes of stack a thread, by Triton 3.6, 3.8 and 3.9, for what waits for the end of the loop over tiles or for the
# branch for the last tile of a level. Everything else spills nothing.
STATED_SPILLS = {("attention", 120): 8, ("attention", 90): 152, ("hopper attention", 90): 120}
STATED_SPILLS |= {("hopper int8 attention", 90): 272}
STATED_SPILLS |= {("int8 attention", 80): 16, ("int8 attention", 86): 8, ("int8+fp8 attention", 89): 40}
STATED_SPILLS |= {("int8+fp8 attention", 120): 64, ("levels by quota", 90): 8}
# Under the causal mask for the few tiles that it cuts.
STATED_SPILLS |= {("causal int8 attention", 86): 24, ("causal int8+fp8 attention", 90): 96}
STATED_SPILLS |= {("causal attention", 90): 376, ("causal attention", 100): 32, ("causal hopper attention", 90): 352}
STATED_SPILLS |= {("attention", "gfx1201"): 44, ("importance", "gfx1201"): 16, ("importance sum", "gfx1201"): 20}
STATED_SPILLS |= {
    ("importance by head", "gfx1201"): 20,
    ("causal importance of runs", "gfx1201"): 64,
    ("importance by head", 100): 8,
    ("block means", 100): 16,
}
# Loads and stores of it on every tile. Those for sm_90 were faster on an H200 than what spills nothing.
STATED_LOOP_SPILLS = {("attention", 90): 48, ("hopper attention", 90): 10, ("attention", "gfx1201"): 1}
STATED_LOOP_SPILLS |= {("causal attention", 90): 57, ("causal hopper attention", 90): 10}
STATED_LOOP_SPILLS |= {("hopper int8 attention", 90): 5, ("causal int8+fp8 attention", 90): 4}
STATED_LOOP_SPILLS |= {("causal importance of runs", "gfx1201"): 1}
# RTX 30 and Hopper; the others with --every-gpu.
ALWAYS = (86, 90)
# By every architecture; Hopper's own kernel only there.
KERNELS = {
    "attention",
    "importance",
    "importance sum",
    "importance by head",
    "causal importance of runs",
    "pyramid",
    "block means",
    "gather",
    "similarity",
    "levels",
    "causal levels by quota",
    "block list",
}
KERNELS |= {"order by size"}
# What `precision: auto` takes where GPUs have matrix instructions for it, and what is the same everywhere.
OWN = {architecture: {"int8 attention", "causal attention"} for architecture in (80, 86)}
OWN |= {architecture: {"int8+fp8 attention", "causal attention"} for architecture in (89, 90, 120)}
OWN |= {100: {"causal attention"}}
OWN[89] |= {"pack", "measure channels"}
OWN[90] |= {"hopper attention", "causal hopper attention", "hopper int8 attention"}
# Those that multiply matrices.
WITH_LOOPS = {"attention", "hopper attention", "hopper int8 attention", "int8 attention", "int8+fp8 attention"}
WITH_LOOPS |= {"importance", "importance sum", "importance by head", "importance of runs"}
WITH_LOOPS |= {f"causal {name}" for name in WITH_LOOPS}


@pytest.fixture(scope="module")
def resources(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What each kernel takes on each GPU; on two of them without ``--every-gpu``, which takes minutes."""
    return _measured(*(["every"] if request.config.option.every_gpu else []))


@pytest.mark.parametrize("architecture", SHARED_LIMITS)
def test_fits(resources: list[dict[str, Any]], architecture: int | str, pytestconfig: pytest.Config) -> None:
    if architecture not in ALWAYS and not pytestconfig.option.every_gpu:
        pytest.skip("--every-gpu compiles for it too")
    found = [row for row in resources if row["architecture"] == architecture]
    if not found:
        pytest.skip(f"this Triton has no compiler for {architecture}")
    assert {row["kernel"] for row in found} == KERNELS | OWN.get(architecture, set())
    for row in found:
        _check(row)


def test_other_variants_fit(pytestconfig: pytest.Config) -> None:
    """Head sizes, types and blocks that take less than others, or as much: on two GPUs."""
    if not pytestconfig.option.every_gpu:
        pytest.skip("--every-gpu compiles them too")
    found = _measured("others")
    assert {row["architecture"] for row in found} == {86, 90}
    for row in found:
        _check(row)


def _measured(*arguments: str) -> list[dict[str, Any]]:
    """What ``kernel_resources.py`` says."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, Path(__file__).parents[1] / "support" / "kernel_resources.py", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode and "this Triton has no" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for row in found:
        print(*row.values(), sep="\t")
    return found


def _check(row: dict[str, Any]) -> None:
    kernel, architecture = row["kernel"], row["architecture"]
    assert row["shared"] <= SHARED_LIMITS[architecture] * 1024, row
    assert row["stack"] <= STATED_SPILLS.get((kernel, architecture), 0), row
    # Only what may have something in its loops is looked through for them.
    looked = row["stack"] > 0 or "int8" in kernel
    assert bool(row["loop_spills"]) == (looked and kernel in WITH_LOOPS), row
    if "int8" in kernel:
        # Over pooled rows, and over level 1, which the causal mask cuts in two.
        assert row["int8_loops"] == (3 if kernel.startswith("causal") else 2), row
    assert max(row["loop_spills"], default=0) <= STATED_LOOP_SPILLS.get((kernel, architecture), 0), row
