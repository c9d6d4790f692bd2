"""A tiny transformer that two GPUs share: the program that ``torchrun`` starts on each of them, with a seed.

The first says how far what they make together is from what it makes alone, and how many sparse calls either took.
"""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist

from psa_core.hosts.diffusers import share_heads

from .diffusers_models import Model, wan
from .shared_models import TOPK, make
from .tensors import relative_error

# 2,295 tokens, which two do not divide.
_LATENTS = (1, 4, 9, 34, 30)
_TIMESTEPS = [900.0, 800.0]


@torch.no_grad()
def main() -> None:
    rank = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl")
    torch.manual_seed(int(sys.argv[1]))
    model = Model(wan(), _LATENTS).to(f"cuda:{rank}", torch.bfloat16)
    alone = make(model, _TIMESTEPS, TOPK, backend="triton")
    share_heads(model.transformer, 2)
    together = make(model, _TIMESTEPS, TOPK, backend="triton")
    if rank == 0:
        errors = [relative_error(x, y) for x, y in zip(together.outputs, alone.outputs, strict=True)]
        print(json.dumps([max(errors), alone.report.sparse_count, together.report.sparse_count]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
