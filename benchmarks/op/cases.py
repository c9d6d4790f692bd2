"""The parts of the benchmark and what they measure beside the cases of ``psa bench``."""

from __future__ import annotations

from psa_core.apps.bench.cases import CASES, CASES_PART, COGVIDEOX_1_5, DENSITY_PART, WAN_14B, Case

# In the order in which they run; whole models are a run of their own.
FIRST_CALL_PART, LENGTH_PART, LOCALITY_PART = "first call", "length", "locality"
STAGES_PART, MASKS_PART, MODEL_PART = "stages", "masks", "model"
PARTS = (FIRST_CALL_PART, CASES_PART, DENSITY_PART, LENGTH_PART, LOCALITY_PART, STAGES_PART, MASKS_PART)

WAN_14B_720P = Case("Wan 14B 720p 81f", 40, 128, (21, 45, 80))
MASK_CASES = (WAN_14B, WAN_14B_720P, COGVIDEOX_1_5)
ALL_CASES = (*CASES, WAN_14B_720P)

# The density of the fast presets' kind and one at which sparse attention has little to give.
LENGTH_DENSITIES = (0.15, 0.4)
_FRAME = (30, 34)
_FRAMES = (2, 4, 8, 12, 16, 24, 32, 64, 128)
_HEADS = {(12, 128): _FRAMES, (40, 128): _FRAMES, (48, 64): _FRAMES[:-1]}


def length_cases() -> list[Case]:
    """The sweep of length: 2,040 to 130,560 tokens a head size, none of them whole key blocks, as in real clips."""
    return [
        Case(f"{heads} heads of {head_dim}", heads, head_dim, (frames, *_FRAME))
        for (heads, head_dim), lengths in _HEADS.items()
        for frames in lengths
    ]
