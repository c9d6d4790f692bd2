"""The time that a report measures: on the CPU, on a GPU without waiting for it, and from several threads."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from psa_core import PSAConfig
from psa_core.hosts.place import Place
from psa_core.hosts.run import Run
from psa_core.report import clock
from psa_core.report.clock import Clock
from psa_core.report.report import Report

from ..support.tensors import Shape, random_qkv

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
GRID = (2, 8, 8)
LITTLE = PSAConfig(block_n=32, block_m=64, mask_ratios={1: (0, 0.3), 4: (0.3, 0.6), 0: (0.6, 1)})


class Time:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_times_add_up_by_name() -> None:
    now = Time()
    measured = Clock(now)
    for name, took in (("a", 1.0), ("b", 0.25), ("a", 2.0)):
        now.at += 7
        with measured.measure(name, CPU):
            now.at += took
    assert measured.seconds() == {"a": 3.0, "b": 0.25}


def test_times_may_be_nested() -> None:
    now = Time()
    measured = Clock(now)
    with measured.measure("whole", CPU):
        now.at += 1
        with measured.measure("part", CPU):
            now.at += 2
    assert measured.seconds() == {"whole": 3.0, "part": 2.0}


def test_calibration_is_a_part_of_sparse_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock moves by a second whenever it is asked, so that a measurement takes 1 and each within it 2 more."""
    config = PSAConfig(mask_mode="calibrated", block_n=32, block_m=64, target_density=0.3)
    run, seconds = Run(config, "torch"), itertools.count()
    monkeypatch.setattr(run.report._clock, "_now", lambda: float(next(seconds)))
    tensors = random_qkv(Shape(1, 2, 128, 128), device=CPU)
    for step in range(6):
        run.attend(*tensors, Place(step, 0, GRID, steps=6))
    # Recipes are chosen in the first step, and their error is measured two and four steps later and in the last one.
    assert run.report.seconds() == (None, 6.0 + 2 * 4, {}, 4.0)
    assert run.report.calibrated.calls == 4
    document = run.report.as_dict()
    assert (document["calibrated"]["seconds"], document["seconds"]["attention"]) == (4.0, 14.0)


def test_what_raises_is_not_counted() -> None:
    measured = Clock()
    with pytest.raises(ZeroDivisionError), measured.measure("a", CPU):
        1 / 0  # noqa: B018
    assert measured.seconds() == {}


def test_other_devices_are_not_measured() -> None:
    report = Report()
    with report.dense_call("warm-up", torch.device("meta")):
        pass
    assert report.dense_count == 1
    assert report.seconds() == (None, None, {}, None)
    assert report.seconds().attention is None


def test_threads_add_up() -> None:
    measured = Clock()

    def work() -> None:
        for _ in range(5):
            with measured.measure("a", CPU):
                time.sleep(0.002)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert measured.seconds()["a"] >= 4 * 5 * 0.002


def test_a_report_tells_sparse_from_dense_and_reasons_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(LITTLE, "torch")
    report = run.report
    now = Time()
    monkeypatch.setattr(report._clock, "_now", now)

    def attend(*_: Any, **__: Any) -> Any:
        now.at += 0.5
        return attention(*_, **__)

    from psa_core.hosts import kept

    attention = kept.sparse_attention
    monkeypatch.setattr(kept, "sparse_attention", attend)
    with report.time_model(CPU):
        now.at += 10
        run.attend(*random_qkv(Shape(), device=CPU), Place(0, 0, GRID))
        run.attend(*random_qkv(Shape(), device=CPU), Place(0, 1, GRID))
        for reason, took in (("warm-up", 2.0), ("cross-attention", 0.125), ("warm-up", 1.0)):
            with report.dense_call(reason, CPU):
                now.at += took
        report.add_dense("never measured")
    seconds = report.seconds()
    assert seconds == (14.125, 1.0, {"warm-up": 3.0, "cross-attention": 0.125}, None)
    assert seconds.attention == 4.125
    assert report.as_dict()["seconds"] == {
        "model": 14.125,
        "attention": 4.125,
        "sparse": 1.0,
        "dense": {"warm-up": 3.0, "cross-attention": 0.125},
    }


class FakeGPU:
    """A GPU that gets as far as it is told, in place of torch's events and streams."""

    def __init__(self) -> None:
        self.queued = self.done = self.events = self.waits = 0

    def event(self, enable_timing: bool) -> FakeEvent:
        assert enable_timing
        self.events += 1
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, gpu: FakeGPU) -> None:
        self.gpu, self.at = gpu, math.inf

    def record(self, stream: object) -> None:
        assert stream == CUDA
        self.gpu.queued += 1
        self.at = self.gpu.queued

    def query(self) -> bool:
        return self.at <= self.gpu.done

    def synchronize(self) -> None:
        self.gpu.waits += 1
        self.gpu.done = max(self.gpu.done, int(self.at))

    def elapsed_time(self, end: FakeEvent) -> float:
        assert self.query()
        assert end.query()
        return 1000.0 * (end.at - self.at)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGPU:
    fake = FakeGPU()
    monkeypatch.setattr(torch.cuda, "Event", fake.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    return fake


class TestEvents:
    def test_nothing_waits_until_somebody_asks(self, gpu: FakeGPU) -> None:
        measured = Clock()
        for _ in range(2 * clock._MOST_PENDING):
            with measured.measure("a", CUDA):
                pass
        assert gpu.waits == 0
        assert measured.seconds() == {"a": 2 * clock._MOST_PENDING}
        assert measured.seconds() == {"a": 2 * clock._MOST_PENDING}

    def test_events_are_used_again(self, gpu: FakeGPU) -> None:
        measured = Clock()
        for i in range(5000):
            with measured.measure(i % 3, CUDA):
                gpu.queued += 1
            # The GPU is some work behind.
            gpu.done = gpu.queued - 60
        assert gpu.waits == 0
        assert gpu.events <= 2 * (clock._MOST_PENDING + 1)
        assert sum(measured.seconds().values()) == 2 * 5000

    def test_clocks_are_summed_up(self, gpu: FakeGPU) -> None:
        one, other = Clock(), Clock()
        for measured, names in ((one, "a"), (other, "ab")):
            for name in names:
                with measured.measure(name, CUDA):
                    pass
        one.take_over(other)
        assert one.seconds() == {"a": 2, "b": 1}
        assert other.seconds() == {"a": 1, "b": 1}


@pytest.fixture
def no_waiting() -> Iterator[None]:
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode(before)


@pytest.mark.gpu
class TestGPU:
    def attend(self, run: Run, qkv: tuple[torch.Tensor, ...], calls: int) -> None:
        q, k, v = qkv
        for layer in range(calls):
            run.attend(q, k, v, Place(0, layer, (5, 30, 52)))
            with run.report.dense_call("warm-up", q.device, 1, layer):
                torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def test_recording_waits_for_nothing(self, request: pytest.FixtureRequest) -> None:
        run = Run(LITTLE, "triton")
        qkv = random_qkv(Shape(1, 2, 7800, 7800, 128), torch.bfloat16, CUDA)
        # Compiles kernels and copies constants.
        self.attend(run, qkv, 1)
        run.report = Report()
        request.getfixturevalue("no_waiting")
        with run.report.time_model(CUDA):
            self.attend(run, qkv, clock._MOST_PENDING)
        torch.cuda.set_sync_debug_mode("default")
        assert run.report.sparse_count == run.report.dense_count == clock._MOST_PENDING
        seconds = run.report.seconds()
        assert 0 < seconds.sparse < seconds.model
        assert 0.3 * seconds.model < seconds.attention < 1.01 * seconds.model
        shares = run.report.level_shares()
        assert sum(share / level for level, share in shares.items() if level) == pytest.approx(run.report.density())

    def test_shares_of_a_mask_wait_for_nothing(self, request: pytest.FixtureRequest) -> None:
        from psa_core import RadialMask

        run = Run(PSAConfig(radial=RadialMask(decay_factor=0.3)), "triton")
        qkv = random_qkv(Shape(1, 2, 7800, 7800, 128), torch.bfloat16, CUDA)
        self.attend(run, qkv, 1)
        request.getfixturevalue("no_waiting")
        self.attend(run, qkv, 3)

    def test_it_is_the_time_that_the_gpu_takes(self) -> None:
        x = torch.randn(4096, 4096, device=CUDA)
        for _ in range(3):
            x @ x
        measured = Clock()
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(20):
            with measured.measure("a", CUDA):
                for _ in range(5):
                    x @ x
        queued = time.perf_counter() - begun
        torch.cuda.synchronize()
        took = time.perf_counter() - begun
        assert measured.seconds()["a"] == pytest.approx(took, rel=0.1)
        assert queued < 0.5 * took

    def test_a_call_costs_microseconds(self) -> None:
        measured = Clock()
        x = torch.ones(1, device=CUDA)
        for _ in range(2 * clock._MOST_PENDING):
            with measured.measure("a", CUDA):
                x.add_(1)
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(1000):
            with measured.measure("a", CUDA):
                pass
        # Half a percent of a call of 10 ms.
        assert (time.perf_counter() - begun) / 1000 < 50e-6

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
    def test_on_a_gpu_that_is_not_the_current_one(self) -> None:
        other = torch.device("cuda", 1)
        x = torch.randn(4096, 4096, device=other)
        measured = Clock()
        with measured.measure("a", other):
            for _ in range(20):
                x @ x
        with measured.measure("a", CUDA):
            pass
        assert measured.seconds()["a"] > 1e-4
        assert torch.cuda.current_device() == 0
