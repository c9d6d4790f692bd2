"""Compile the kernels for GPUs that are not there and say what each takes; one JSON object a line.

Runs in a process of its own, because Triton's interpreter and its compiler do not share one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).parent.parent))

from psa_core.ops.attention.triton import _pyramid_attention
from psa_core.ops.importance.triton import _sampled_max
from psa_core.ops.launch import IMPORTANCE_LAUNCH, Launch, attention_launch
from psa_core.ops.pyramid.triton import NUM_WARPS, SPAN, _gather_pool

ARCHITECTURES = (80, 86, 89, 90, 100, 103, 120)
BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
DTYPES = {"bf16": "*bf16", "fp16": "*fp16"}
# dtype, block_m, block_n
VARIANTS = (("bf16", 128, 128), ("fp16", 64, 32))


class Case(NamedTuple):
    """One kernel as one GPU would run it."""

    kernel: str
    architecture: int
    d: int
    dtype: str
    block_m: int
    block_n: int


def measure(case: Case) -> dict[str, Any]:
    """Compile one case; shared memory and stack in bytes, registers a thread. Stack means that registers spilled."""
    if case.kernel == "attention":
        launch = attention_launch(divmod(case.architecture, 10), case.d, case.block_m)
        constants = {"BLOCK_M": case.block_m, "LOG_BLOCK_N": case.block_n.bit_length() - 1, "N_LEVELS": 4}
        kernel = _pyramid_attention
    elif case.kernel == "importance":
        launch, kernel = IMPORTANCE_LAUNCH, _sampled_max
        constants = {"PER_M": case.block_m // 4, "PER_N": case.block_n // 4}
    else:
        launch, kernel = Launch(SPAN, SPAN, NUM_WARPS, 1), _gather_pool
        constants = {"SPAN": SPAN, "FIRST": 1, "LAST": case.block_n.bit_length() - 1, "REORDER": False}
    constants |= {"D": case.d, "TILE_M": launch.tile_m, "TILE_N": launch.tile_n}
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages}
    source = _source(kernel, constants, DTYPES[case.dtype])
    compiled = triton.compile(source, target=GPUTarget("cuda", case.architecture, 32), options=options)
    usage = _usage(compiled.asm["cubin"])
    return case._asdict() | {
        "launch": list(launch), "shared": compiled.metadata.shared, "registers": usage["REG"], "stack": usage["STACK"]
    }  # fmt: skip


def _source(kernel: Any, constants: dict[str, int], pointer: str) -> ASTSource:
    """The kernel specialised as for a model's tensors: aligned, the head dimension innermost."""
    others = {"blocks_ptr": "*i32", "counts_ptr": "*i32", "scores_ptr": "*fp32"}
    others |= {"scale": "fp32"}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    constants |= {name: 1 for name in kernel.arg_names if name.endswith("stride_d")}
    signature, attributes = {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        signature[name] = others.get(name, pointer if name.endswith("_ptr") else "i32")
        if name.endswith("_ptr") or re.match(r"([qkv]_|out_)?stride", name):
            attributes[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, attributes)


def _usage(cubin: bytes) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [BINARIES / "cuobjdump", "--dump-resource-usage", file]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {key: int(value) for key, value in re.findall(r"(REG|STACK):(\d+)", said)}


def main() -> None:
    missing = [name for name in ("ptxas", "cuobjdump") if not (BINARIES / name).exists()]
    if missing:
        sys.exit(f"this Triton has no {' and no '.join(missing)}")
    cases = [
        Case(kernel, architecture, d, *variant)
        for kernel in ("attention", "importance", "pyramid")
        for architecture in ARCHITECTURES
        for d in (64, 128)
        for variant in VARIANTS
    ]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for result in pool.map(measure, cases):
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
