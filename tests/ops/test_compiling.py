"""Kernels compiled side by side: what is compiled, in which order, and that nothing is launched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from psa_core import PSAConfig
from psa_core.ops import compiling
from psa_core.ops.compiling import compiles_ahead, compiling_ahead, launcher

# Triton's default until 3.10.
FUSED = {"enable_fp_fusion": True}


class Kernel:
    """Records what it is told to do; ``together`` makes every compilation wait for another one."""

    def __init__(self, together: threading.Barrier | None = None, fails: bool = False) -> None:
        self.launched: list[tuple] = []
        self.compiled: list[tuple] = []
        self.together, self.fails = together, fails

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *args, **options: self.launched.append((args, grid, options))

    def warmup(self, *args: Any, grid: tuple[int, ...], **options: Any) -> None:
        if self.together is not None:
            self.together.wait(20)
        if self.fails:
            raise RuntimeError("no such instruction")
        self.compiled.append((args, grid, options, devices.current))


class Devices(threading.local):
    current = 0


devices = Devices()


@pytest.fixture(autouse=True)
def of_two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def device(number: int) -> Iterator[None]:
        devices.current = number
        yield

    monkeypatch.setattr(compiling.torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(compiling.torch.cuda, "device", device)
    monkeypatch.setattr(compiling, "triton_version", lambda: (3, 6))
    monkeypatch.setattr(compiling.os, "cpu_count", lambda: 8)


def test_launches_run_outside_and_are_compiled_inside() -> None:
    kernel = Kernel()
    launcher(kernel, (2,))("x", D=64)
    with compiling_ahead():
        assert compiles_ahead()
        launcher(kernel, (3,))("y", D=128)
        other = threading.Thread(target=lambda: launcher(kernel, (4,))("z", D=32))
        other.start()
        other.join()
    assert not compiles_ahead()
    assert kernel.launched == [(("x",), (2,), {"D": 64} | FUSED), (("z",), (4,), {"D": 32} | FUSED)]
    assert kernel.compiled == [(("y",), (3,), {"D": 128} | FUSED, 1)]


def test_different_ones_at_the_same_time() -> None:
    together = threading.Barrier(3)
    kernels = [Kernel(together), Kernel(together)]
    with compiling_ahead():
        launcher(kernels[0], (1,))(D=64)
        launcher(kernels[0], (1,))(D=128)
        launcher(kernels[1], (1,))(D=64)
    assert [len(kernel.compiled) for kernel in kernels] == [2, 1]


@pytest.mark.parametrize("cores", [1, 8])
def test_levels_are_compiled_for_every_length_where_that_costs_little(
    monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    levels = pytest.importorskip("psa_core.ops.levels.triton")
    kernel = Kernel()
    monkeypatch.setattr(levels, "_select_levels", kernel)
    monkeypatch.setattr(compiling.os, "cpu_count", lambda: cores)
    importance = torch.full((1, 1, 2, 300), 1 / 300)
    levels.select_levels_triton(importance, PSAConfig(block_n=64))
    with compiling_ahead():
        levels.select_levels_triton(importance, PSAConfig(block_n=64))
    assert [options["BLOCK"] for _, _, options in kernel.launched] == [512]
    compiled = sorted(options["BLOCK"] for _, _, options, _ in kernel.compiled)
    assert compiled == ([512] if cores == 1 else [128, 256, 512, 1024, 2048, 4096])


def test_launches_of_one_follow_each_other() -> None:
    at_work, most, guard = 0, 0, threading.Lock()

    class Counting(Kernel):
        def warmup(self, *args: Any, grid: tuple[int, ...], **options: Any) -> None:
            nonlocal at_work, most
            with guard:
                at_work += 1
                most = max(most, at_work)
            super().warmup(*args, grid=grid, **options)
            with guard:
                at_work -= 1

    kernel = Counting()
    with compiling_ahead():
        for tokens in range(20):
            launcher(kernel, (1,))(tokens, D=64)
    assert [args for args, *_ in kernel.compiled] == [(tokens,) for tokens in range(20)]
    assert most == 1


def test_one_that_fails_is_passed_over() -> None:
    good, bad = Kernel(), Kernel(fails=True)
    with compiling_ahead():
        launcher(bad, (1,))(D=64)
        launcher(bad, (1,))(D=64)
        launcher(good, (1,))(D=64)
    assert len(good.compiled) == 1


def test_an_error_of_the_caller_ends_it() -> None:
    def fail() -> None:
        with compiling_ahead():
            raise ValueError("no such block")

    with pytest.raises(ValueError, match="no such block"):
        fail()
    assert not compiles_ahead()


def test_one_thread_where_triton_has_no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "triton_version", lambda: (3, 4))
    kernels = [Kernel() for _ in range(5)]
    names = set()
    monkeypatch.setattr(Kernel, "warmup", lambda self, *args, **more: names.add(threading.current_thread().name))
    with compiling_ahead():
        for kernel in kernels:
            launcher(kernel, (1,))()
    assert len(names) == 1
