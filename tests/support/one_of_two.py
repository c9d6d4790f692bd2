"""``psa`` as one of two processes that share a model; as a program, it is the second of them.

Its arguments are a file that they meet by, and the command's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist

from psa_core.apps.cli import main

_PATIENCE = timedelta(minutes=5)


def run_as(rank: int, meeting: Path, arguments: Sequence[str]) -> int:
    """Run ``psa`` as the process of this rank; its exit code."""
    join = dist.init_process_group

    def join_here(backend: str) -> None:
        join(backend, init_method=meeting.as_uri(), rank=rank, world_size=2, timeout=_PATIENCE)

    there = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "here"}
    with (
        mock.patch.dict(os.environ, there),
        mock.patch.object(dist, "init_process_group", join_here),
        # Diffusers counts GPUs, and there are none.
        mock.patch.object(torch.accelerator, "device_count", return_value=1),
        mock.patch.object(torch.accelerator, "current_accelerator", return_value=torch.device("cpu")),
    ):
        return main(arguments)


if __name__ == "__main__":
    sys.exit(run_as(1, Path(sys.argv[1]), sys.argv[2:]))
