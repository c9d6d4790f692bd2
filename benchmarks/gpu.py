"""The GPU that a command of its own needs, or one line that says why there is none."""

from __future__ import annotations

import argparse

from psa_core.apps.bench.side_by_side import gpu
from psa_core.ops.backends import BackendError


def need_gpu(parser: argparse.ArgumentParser) -> None:
    """End the command as a wrong option does where there is no GPU that the kernels run on."""
    try:
        gpu(parser.prog)
    except BackendError as error:
        parser.error(str(error))
