"""Which Triton is installed."""

from __future__ import annotations


def triton_version() -> tuple[int, int]:
    """Major and minor version of the Triton that is installed."""
    import triton

    major, minor = triton.__version__.split(".")[:2]
    return int(major), int(minor)
