"""The parts of the benchmark and what they measure beside the cases of ``psa bench``."""

from __future__ import annotations

from psa_core.apps.bench.cases import (
    CASES,
    CASES_PART,
    COGVIDEOX,
    COGVIDEOX_1_5,
    DENSITY_PART,
    WAN_14B,
    WAN_720P,
    Case,
)

# In the order in which they run; whole models are a run of their own.
FIRST_CALL_PART, LENGTH_PART, LOCALITY_PART = "first call", "length", "locality"
STAGES_PART, MASKS_PART, MODEL_PART = "stages", "masks", "model"
FIELD_PART, PRECISION_PART, MEMORY_PART = "field", "precision", "memory"
PARTS = (
    FIRST_CALL_PART, CASES_PART, FIELD_PART, DENSITY_PART, LENGTH_PART, LOCALITY_PART, STAGES_PART, PRECISION_PART,
    MEMORY_PART, MASKS_PART,
)  # fmt: skip

WAN_14B_720P = Case("Wan 14B 720p 81f", 40, 128, (21, 45, 80))
MASK_CASES = (WAN_14B, WAN_14B_720P, COGVIDEOX_1_5)
PRECISION_CASES = (WAN_720P, WAN_14B, COGVIDEOX_1_5, COGVIDEOX)

LTX_704P = Case("LTX-2 1280 x 704 121f", 32, 128, (16, 22, 40))
LTX_1080P = Case("LTX-2 1920 x 1088 121f", 32, 128, (16, 34, 60))
# Text, references and sound in front of the video stay exact.
H3 = Case("MiniMax H3, 37 frames of tokens", 56, 128, (37, 24, 42), 900)
H3_LONG = Case("MiniMax H3, 107 frames of tokens", 56, 128, (107, 24, 42), 900)
PACKED = Case("104,050 packed tokens", 56, 128, (103, 24, 42), 226)
# One of eight GPUs that share H3's heads: every query keeps 64 blocks of 64 keys.
FEW_BLOCKS = Case("64 blocks of 64", 7, 128, (571, 12, 16))
FIELD_CASES = (LTX_704P, LTX_1080P, H3, H3_LONG, PACKED, FEW_BLOCKS)
ALL_CASES = (*CASES, WAN_14B_720P, *FIELD_CASES)

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
