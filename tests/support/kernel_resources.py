"""Compile the kernels for GPUs that are not there and say what each takes; one JSON object a line.

Runs in a process of its own, because Triton's interpreter and its compiler do not share one. For two GPUs; ``every``
behind it: for all; ``others``: the variants that take less or as much, for two.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends import backends
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction

sys.path.insert(0, str(Path(__file__).parents[2]))

from loop_spills import int8_loops, loop_spills, parse_amdgcn, parse_sass

from psa_core.ops.attention import hopper
from psa_core.ops.attention.hopper.kernel import pyramid_attention_kernel
from psa_core.ops.attention.quantised import FP8_SHIFT, HALF_SUMS, _quantised_attention
from psa_core.ops.attention.triton import _pyramid_attention
from psa_core.ops.block_list.triton import LANES, ORDER_BLOCK, RUN, _list_blocks, _order_by_size
from psa_core.ops.compiling import OPTIONS
from psa_core.ops.importance.sub_blocks import SUB_BLOCK
from psa_core.ops.importance.triton import BY_HEAD, MAX, SUM, _sampled
from psa_core.ops.launch import AMD, Launch, attention_launch, importance_launch, quantised_launch
from psa_core.ops.levels.triton import _select_levels, launch_for
from psa_core.ops.packed.rows import VALUE_TOP
from psa_core.ops.packed.triton import CENTER_CHUNKS, CHUNK, SPAN, _measure_channels, _pack, pack_warps
from psa_core.ops.pyramid.triton import GROUP, GROUPS, _gather, _pool, warps
from psa_core.ops.similarity.triton import _similarity_cap

# sm_103 gets what sm_100 gets.
ARCHITECTURES = (80, 86, 89, 90, 100, 120)
# Where other variants are compiled too, on request; each GPU compiles those that take most.
THOROUGH = (86, 90)
# MI300 and Radeon RX 9070, with the threads of a warp.
AMD_WARPS = {"gfx942": 64, "gfx1201": 32}
BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
DTYPES = {"bf16": "*bf16", "fp16": "*fp16"}
# dtype, block_m, block_n
VARIANTS = (("bf16", 128, 128), ("fp16", 64, 32))
# Attention looks more up where blocks are smaller than a tile.
SMALL_BLOCKS = ("bf16", 128, 32)
# By name: the estimator, and the share of the tokens that it looks at.
IMPORTANCE = {
    "importance": (MAX, 4),
    "importance sum": (SUM, 4),
    "importance by head": (BY_HEAD, 4),
    "importance of runs": (SUM, SUB_BLOCK),
}
# By name: what packed values are, as torch, kernels and descriptors call it.
QUANTISED = {"int8 attention": (torch.float16, "fp16"), "int8+fp8 attention": (torch.float8_e4m3fn, "fp8e4nv")}
HOPPER = ("hopper attention", "hopper int8 attention")
# What ``precision: auto`` takes, by architecture.
COARSEST = {80: "int8", 86: "int8", 89: "int8+fp8", 90: "int8+fp8", 120: "int8+fp8"}


class Case(NamedTuple):
    """One kernel as one GPU would run it."""

    kernel: str
    architecture: int | str
    d: int
    dtype: str
    block_m: int
    block_n: int
    k_blocks: int = 0
    reorder: bool = True
    causal: bool = False

    @property
    def capability(self) -> tuple[int, int]:
        return AMD if isinstance(self.architecture, str) else divmod(self.architecture, 10)

    @property
    def target(self) -> GPUTarget:
        if isinstance(self.architecture, str):
            return GPUTarget("hip", self.architecture, AMD_WARPS[self.architecture])
        return GPUTarget("cuda", self.architecture, 32)


def measure(case: Case) -> dict[str, Any]:
    """Compile one case; shared memory and stack in bytes, registers a thread. Stack means that registers spilled.

    ``loop_spills``: how many times each tile of a main loop loads or stores what spilled. ``int8_loops``: how many main
    loops multiply INT8. Neither knows of loops in a kernel that can have none of both: without a stack and INT8.
    """
    if case.kernel == "attention":
        launch = attention_launch(case.capability, case.d, case.block_m)
        constants = {"BLOCK_M": case.block_m, "LOG_BLOCK_N": case.block_n.bit_length() - 1, "N_LEVELS": 4}
        constants |= {"REORDER": case.reorder, "ORDERED": True}
        kernel = _pyramid_attention
    elif case.kernel in HOPPER:
        packed = case.kernel == "hopper int8 attention"
        launches = hopper.INT8_LAUNCHES if packed else hopper.LAUNCHES
        rows, stages, producer_registers, consumer_registers = launches[case.d]
        launch, kernel = Launch(case.block_m, rows, 4, stages), pyramid_attention_kernel
        constants = {"LOG_BLOCK_N": case.block_n.bit_length() - 1, "N_LEVELS": 4, "STAGES": stages}
        constants |= {"REORDER": case.reorder, "ORDERED": True}
        constants |= {"PACKED": packed}
        constants |= {"PRODUCER_REGISTERS": producer_registers, "CONSUMER_REGISTERS": consumer_registers}
    elif case.kernel in QUANTISED:
        launch, kernel, constants = _quantised(case)
    elif case.kernel == "pack":
        launch, kernel = Launch(1, GROUP * GROUPS, pack_warps(case.d), 1), _pack
        constants = {"TILE": 64, "GROUPS": GROUPS, "LAST": case.block_n.bit_length() - 1, "REORDER": True}
        constants |= {"VALUE_TOP": 440.0, "TRANSPOSE": True}
    elif case.kernel == "measure channels":
        launch, kernel = Launch(1, CHUNK, 4, 3), _measure_channels
        constants = {"SPAN": SPAN, "CHUNK": CHUNK, "CENTER_CHUNKS": CENTER_CHUNKS}
    elif case.kernel in IMPORTANCE:
        launch, kernel = importance_launch(case.capability), _sampled
        estimator, share = IMPORTANCE[case.kernel]
        constants = {"ESTIMATOR": estimator.value, "PER_M": case.block_m // share, "PER_N": case.block_n // share}
    elif case.kernel in ("levels", "levels by quota"):
        block, num_warps = launch_for(case.k_blocks)
        launch, kernel = Launch(1, block, num_warps, 1), _select_levels
        constants = {"BY_MASS": case.kernel == "levels", "CAP": True, "STATIC": True, "INTERSECT": True, "SINKS": True}
        constants["BLOCK"] = block
    elif case.kernel == "block list":
        launch, kernel = Launch(1, RUN * LANES, 1, 1), _list_blocks
        constants = {"N_LEVELS": 8, "LOG_BLOCK_N": 7, "RUN": RUN, "LANES": LANES}
    elif case.kernel == "order by size":
        launch, kernel = Launch(1, ORDER_BLOCK, 4, 1), _order_by_size
        constants = {"BLOCK": ORDER_BLOCK}
    elif case.kernel == "gather":
        launch, kernel = Launch(1, GROUP * GROUPS, 8, 1), _gather
        constants = {"SPAN": GROUP * GROUPS}
    elif case.kernel == "similarity":
        launch, kernel = Launch(1, case.block_n, 4, 1), _similarity_cap
        constants = {"BLOCK_N": case.block_n, "REORDER": True}
    else:
        launch, kernel = Launch(1, GROUP * GROUPS, warps(case.d), 1), _pool
        last = case.block_n.bit_length() - 1
        constants = {"GROUPS": GROUPS, "FIRST": 1, "LAST": last, "REORDER": True}
        if case.kernel == "block means":
            constants["FIRST"] = last
    constants |= {"D": case.d, "TILE_M": launch.tile_m, "TILE_N": launch.tile_n}
    constants |= {"GROUP": 7 if case.causal else 1, "CAUSAL": case.causal}
    options = OPTIONS | {"num_warps": launch.num_warps, "num_stages": launch.num_stages}
    source = _source(kernel, constants, DTYPES[case.dtype])
    if case.kernel in QUANTISED:
        _describe_packed(source, case, launch)
    if case.kernel == HOPPER[1]:
        source.signature |= {"packed_k_ptr": "*i8", "packed_v_ptr": "*fp16"}
    compiled = triton.compile(source, target=case.target, options=options)
    if "cubin" in compiled.asm:
        usage = _cuda_usage(compiled.asm["cubin"], "int8" in case.kernel)
    else:
        usage = _amd_usage(compiled.asm["amdgcn"])
    name = f"causal {case.kernel}" if case.causal else case.kernel
    return case._asdict() | {"kernel": name, "launch": list(launch), "shared": compiled.metadata.shared} | usage


def _quantised(case: Case) -> tuple[Launch, Any, dict[str, Any]]:
    """Launch, kernel and constants of attention over a packed pyramid, where ``precision: auto`` has a say."""
    values, _ = QUANTISED[case.kernel]
    chosen = quantised_launch(case.capability, case.d, case.block_m, case.block_n)
    constants = {"BLOCK_M": case.block_m, "LOG_BLOCK_N": case.block_n.bit_length() - 1, "N_LEVELS": 8}
    constants |= {"REORDER": case.reorder, "ORDERED": True, "EXACT": True, "GATHERED_N": chosen.gathered_n}
    constants |= {"FP8": values == torch.float8_e4m3fn, "FP8_SHIFT": FP8_SHIFT, "TMA": case.architecture == 90}
    constants |= {"HALF_SUMS": case.capability in HALF_SUMS, "STAGES": chosen.num_stages}
    constants |= {"V_TOP": VALUE_TOP[values]}
    launch = Launch(chosen.tile_m, chosen.tile_n, chosen.num_warps, chosen.gathered_stages)
    return launch, _quantised_attention, constants


def _describe_packed(source: ASTSource, case: Case, launch: Launch) -> None:
    """Give packed keys and values the types they have: on Hopper descriptors, elsewhere pointers."""
    values = QUANTISED[case.kernel][1]
    source.signature |= {"packed_k_ptr": "*i8", "packed_v_ptr": f"*{values}"}
    if case.architecture == 90:
        tile, turned = [launch.tile_n, case.d], [case.d, launch.tile_n]
        source.signature |= {"packed_k_ptr": f"tensordesc<i8{tile}>"}
        source.signature |= {"packed_v_ptr": f"tensordesc<{values}{turned if values == 'fp8e4nv' else tile}>"}
        names = source.fn.arg_names
        source.attrs = {at: value for at, value in source.attrs.items() if "packed" not in names[at[0]]}


def _source(kernel: Any, constants: dict[str, int], pointer: str) -> ASTSource:
    """The kernel specialised as for a model's tensors: aligned, the head dimension innermost."""
    others = {"blocks_ptr": "*i32", "spans_ptr": "*i32", "order_ptr": "*i32", "sizes_ptr": "*i8", "scores_ptr": "*fp32"}
    others |= {"counter_ptr": "*i32", "of_head_ptr": "*i32", "q_of_head_ptr": "*i32", "estimator_ptr": "*i32"}
    bounds = "*fp32" if constants.get("BY_MASS") else "*i32"
    others |= {"importance_ptr": "*fp32", "bounds_ptr": bounds, "choices_ptr": "*i32"}
    others |= {"k_scale_ptr": "*fp32", "center_ptr": "*fp32", "exact_ptr": "*u8", "read_ptr": "*u8"}
    others |= {"k_out_ptr": "*i8", "v_out_ptr": "*fp8e4nv", "v_max_ptr": "*fp32"}
    others |= {"k_rows_ptr": "*i8", "row_scale_ptr": "*fp32", "v_rows_ptr": "*fp16"}
    if kernel is _measure_channels:
        others["v_max_ptr"] = "*i32"
    others |= {"static_ptr": "*u8", "levels_ptr": "*u8", "sink_rows_ptr": "*u8", "sink_columns_ptr": "*u8"}
    others |= dict.fromkeys(("hidden_ptr", "seen_ptr", "own_ptr", "behind_ptr", "full_quota_ptr"), "*i32")
    others |= {"q_index_ptr": "*i64", "index_ptr": "*i64", "sample_ptr": "*i64", "cap_ptr": "*u8"}
    others |= dict.fromkeys(("scale", "x2", "x4", "x8"), "fp32")
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    constants |= {name: 1 for name in kernel.arg_names if name.endswith("stride_d")}
    left_out = [x.name for x in kernel.params if x.is_constexpr and x.name not in constants]
    assert not left_out, f"{kernel.__name__}: no value for {', '.join(left_out)}"
    signature, attributes = {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        signature[name] = others.get(name, pointer if name.endswith("_ptr") else "i32")
        if name.endswith("_ptr") or re.match(r"([qkvxy]_|out_)?stride", name):
            attributes[(i,)] = [["tt.divisibility", 16]]
    kind = GluonASTSource if isinstance(kernel, GluonJITFunction) else ASTSource
    return kind(kernel, signature, constants, attributes)


def _cuda_usage(cubin: bytes, quantised: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        found = dict(re.findall(r"(REG|STACK):(\d+)", _dump(file, "--dump-resource-usage")))
        stack = int(found["STACK"])
        program = parse_sass(_dump(file, "--dump-sass")) if stack or quantised else []
    of_loops = {"loop_spills": loop_spills(program), "int8_loops": int8_loops(program)}
    return {"registers": int(found["REG"]), "stack": stack} | of_loops


def _dump(cubin: Path, what: str) -> str:
    return subprocess.run([BINARIES / "cuobjdump", what, cubin], capture_output=True, text=True, check=True).stdout


def _amd_usage(assembly: str) -> dict[str, Any]:
    found = dict(re.findall(r"\.(vgpr_count|private_segment_fixed_size):\s+(\d+)", assembly))
    stack = int(found["private_segment_fixed_size"])
    spills = loop_spills(parse_amdgcn(assembly)) if stack else []
    return {"registers": int(found["vgpr_count"]), "stack": stack, "loop_spills": spills}


def _cases(architectures: list[int | str]) -> Iterator[Case]:
    """Every kernel where it takes most: at a head size of 128, attention with blocks smaller than a tile too."""
    for architecture in architectures:
        yield Case("attention", architecture, 64, *SMALL_BLOCKS)
        for variant in (SMALL_BLOCKS, VARIANTS[1]):
            yield Case("attention", architecture, 128, *variant)
        if not isinstance(architecture, str):
            yield Case("attention", architecture, 128, *VARIANTS[0], reorder=False, causal=True)
        for kernel in (*IMPORTANCE, "pyramid", "block means", "gather", "similarity", "block list", "order by size"):
            # The causal mask is much the same in all of a kind.
            yield Case(kernel, architecture, 128, *VARIANTS[0], causal=kernel == "importance of runs")
        for kernel in ("levels", "levels by quota"):
            yield Case(kernel, architecture, 128, *VARIANTS[0], k_blocks=4096, causal=kernel == "levels by quota")
        if architecture in COARSEST:
            yield from (Case(f"{COARSEST[architecture]} attention", architecture, d, *VARIANTS[0]) for d in (64, 128))
    yield from (Case(kernel, 89, 128, *VARIANTS[0]) for kernel in ("pack", "measure channels"))
    yield from (Case("hopper attention", 90, d, *VARIANTS[0]) for d in (64, 128))
    yield Case("hopper int8 attention", 90, 128, *VARIANTS[0])
    yield Case("hopper attention", 90, 128, *VARIANTS[0], reorder=False, causal=True)


def _other_cases() -> Iterator[Case]:
    """Variants of the kernels that take less or as much."""
    for architecture in THOROUGH:
        yield Case("attention", architecture, 64, *VARIANTS[1])
        for d in (64, 128):
            yield Case("attention", architecture, d, *VARIANTS[0])
        # Of tokens as they come.
        yield Case("attention", architecture, 128, *VARIANTS[0], reorder=False)
        quantised = f"{COARSEST[architecture]} attention"
        yield Case(quantised, architecture, 128, *VARIANTS[0], reorder=False, causal=True)
        for kernel in (*IMPORTANCE, "pyramid", "block means", "gather", "similarity"):
            yield Case(kernel, architecture, 64, *VARIANTS[1])
        for kernel in ("levels", "levels by quota"):
            yield Case(kernel, architecture, 128, *VARIANTS[0], k_blocks=512)
    yield Case("hopper int8 attention", 90, 64, *VARIANTS[0])
    for d in (64, 128):
        yield Case("hopper attention", 90, d, "fp16", 128, 32)
    yield Case("hopper attention", 90, 128, *VARIANTS[0], reorder=False)


def main() -> None:
    missing = [name for name in ("ptxas", "cuobjdump", "nvdisasm") if not (BINARIES / name).exists()]
    if missing:
        sys.exit(f"this Triton has no {' and no '.join(missing)}")
    every = [*ARCHITECTURES, *(AMD_WARPS if "amd" in backends else ())]
    architectures = every if sys.argv[1:] == ["every"] else list(THOROUGH)
    cases = _other_cases() if sys.argv[1:] == ["others"] else _cases(architectures)
    # With torch and Triton read once. Windows has no fork, and ended above.
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        for result in pool.map(measure, cases):
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
