"""Kernels launch on the device of their tensors, whichever one is current."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
import torch

from psa_core.ops.current_device import on_device_of_first


def test_the_first_arguments_device_is_current_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    current = ["another"]

    @contextmanager
    def device_of(x: Any):
        current.append(x)
        yield
        current.pop()

    @on_device_of_first
    def launch(x: str, y: str, *, z: str) -> tuple[str, str, str, str]:
        return x, y, z, current[-1]

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    assert launch("x", "y", z="z") == ("x", "y", "z", "x")
    assert current == ["another"]
