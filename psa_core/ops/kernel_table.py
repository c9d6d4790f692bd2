"""What each set of kernels takes, as data: refusals, ``psa doctor`` and the README's table come from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..settings.sizes import HEAD_SIZES

_HALF = (torch.float16, torch.bfloat16)


# Compared as what they are, not by their fields: it is done on every attention call.
@dataclass(frozen=True, eq=False)
class Kernels:
    """One set of kernels. An empty field leaves everything open.

    Attributes:
        name: by which the environment variable ``PSA_BACKEND`` knows it.
        backend: by which a caller asks for it.
        what: it, in a few words for a user.
        vendors: whose GPUs it runs on.
        dtypes, head_sizes, block_m: of queries, keys and values; tokens a query block.
        capability: NVIDIA's compute capability, the oldest and the newest; None for no newest.
        lacking: majors of it in between whose GPUs lack what the kernels need.
        needs: packages beside torch, and parts of them.
        triton: the oldest version of Triton.
        no_gpu, other_gpu, fails, warning: texts of refusals: tensors elsewhere than on such a GPU, a GPU of another
            capability, and kernels that do not run when they are tried, for the user and for the log.
    """

    name: str
    backend: str
    what: str
    vendors: tuple[str, ...] = ()
    dtypes: tuple[torch.dtype, ...] = ()
    head_sizes: tuple[int, ...] = ()
    block_m: tuple[int, ...] = ()
    capability: tuple[tuple[int, int], tuple[int, int] | None] | None = None
    lacking: tuple[int, ...] = ()
    needs: tuple[str, ...] = ()
    triton: tuple[int, int] | None = None
    no_gpu: str = ""
    other_gpu: str = ""
    fails: str = ""
    warning: str = ""


HOPPER = Kernels(
    name="hopper",
    backend="triton",
    what="the kernel for Hopper",
    vendors=("NVIDIA",),
    dtypes=_HALF,
    head_sizes=HEAD_SIZES,
    block_m=(128,),
    capability=((9, 0), (9, 0)),
    needs=("Triton", "Gluon"),
    no_gpu="{device} is no Hopper GPU",
    other_gpu="{gpu} is no Hopper GPU",
    # Gluon is experimental: another Triton may have moved what the kernel uses.
    fails="Triton cannot run it here",
    warning="The attention kernel for Hopper does not run here; the portable one does",
)
# Level 1 of a packed pyramid; it takes what the one in 16 bits takes.
HOPPER_INT8 = replace(
    HOPPER,
    name="int8 on hopper",
    what="the INT8 kernel for Hopper",
    warning="The INT8 attention kernel for Hopper does not run here; the portable one does",
)
PORTABLE = Kernels(
    name="portable",
    backend="triton",
    what="the Triton kernels",
    vendors=("NVIDIA", "AMD"),
    dtypes=_HALF,
    head_sizes=HEAD_SIZES,
    block_m=(64, 128),
    # Triton has matrix instructions from Ampere on; before it, kernels spill registers and exceed shared memory.
    capability=((8, 0), None),
    needs=("Triton",),
    # Older ones do not pipeline the loops, print an error for each, and abort the process on newer cards.
    triton=(3, 3),
    no_gpu="the model runs on {device}, not on an NVIDIA or AMD GPU",
    other_gpu="{gpu} is older than the kernels need (Ampere, compute capability 8.0)",
    # A missing C compiler, a Triton that does not fit the driver, too little shared memory: they show only when a
    # kernel is built and launched.
    fails="Triton cannot run the kernels here",
    warning="Triton cannot run the kernels on {device}",
)
TORCH = Kernels(name="torch", backend="torch", what="plain PyTorch", block_m=(64, 128))

# Best first: each is taken before those behind it.
TABLE = (HOPPER, PORTABLE, TORCH)

# In place of the first two where a precision other than that of the tensors is asked for.
QUANTISED = Kernels(
    name="int8",
    backend="triton",
    what="the INT8 kernels",
    vendors=("NVIDIA",),
    dtypes=_HALF,
    head_sizes=(64, 128),
    block_m=(64, 128),
    capability=((8, 0), None),
    # Data centres' Blackwell (B200, B300) has no INT8 matrix instruction that Triton knows of.
    lacking=(10,),
    needs=("Triton",),
    triton=(3, 3),
    no_gpu="{device} is no NVIDIA GPU",
    other_gpu="{gpu} has no INT8 matrix instructions that Triton knows of",
    fails="Triton cannot run them here",
    warning="The INT8 attention kernels do not run here; attention stays in the model's precision",
)

# Dense attention in place of a model's own (``PSAConfig.dense_backend``).
CUDNN = Kernels(
    name="cudnn",
    backend="dense",
    what="cuDNN's attention",
    vendors=("NVIDIA",),
    dtypes=_HALF,
    head_sizes=HEAD_SIZES,
    capability=((8, 0), None),
    no_gpu="the model runs on {device}, not on an NVIDIA GPU",
    other_gpu="{gpu} is older than cuDNN's attention needs (Ampere, compute capability 8.0)",
    fails="cuDNN's attention does not run here",
    warning="cuDNN's attention does not run on {device}",
)
COMFY_KITCHEN = Kernels(
    name="comfy_kitchen",
    backend="dense",
    what="comfy-kitchen's INT8 attention",
    vendors=("NVIDIA", "AMD"),
    dtypes=_HALF,
    head_sizes=HEAD_SIZES,
    no_gpu="the model runs on {device}, not on an NVIDIA or AMD GPU",
    fails="comfy-kitchen's INT8 attention does not run here",
    warning="comfy-kitchen's INT8 attention does not run on {device}",
)
SAGE = Kernels(
    name="sage",
    backend="dense",
    what="SageAttention",
    vendors=("NVIDIA", "AMD"),
    dtypes=_HALF,
    head_sizes=HEAD_SIZES,
    no_gpu="the model runs on {device}, not on an NVIDIA or AMD GPU",
    fails="SageAttention does not run here",
    warning="SageAttention does not run on {device}",
)
