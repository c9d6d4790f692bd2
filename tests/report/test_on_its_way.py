"""Numbers on their way to the host."""

from __future__ import annotations

import pytest
import torch

from psa_core.report.on_its_way import OnItsWay


def test_those_of_a_cpu_are_there_at_once() -> None:
    x = torch.randn(2, 3)
    on_its_way = OnItsWay(x)
    assert on_its_way.has_arrived()
    assert on_its_way.value() is x


@pytest.mark.gpu
@pytest.mark.parametrize("stream", ["default", "another"])
def test_those_of_a_gpu_come_without_a_wait(stream: str) -> None:
    x = torch.randn(2, 3, device="cuda")
    expected = x.cpu()
    # CUDA waits once for memory that is pinned.
    OnItsWay(x).value()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.current_stream() if stream == "default" else torch.cuda.Stream()):
        torch.cuda.set_sync_debug_mode("error")
        try:
            torch.cuda._sleep(200_000_000)
            on_its_way = OnItsWay(x.clone())
            # What comes into the same memory later is none of its business.
            torch.zeros_like(x)
            assert not on_its_way.has_arrived()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        value = on_its_way.value()
    assert on_its_way.has_arrived()
    assert value.device.type == "cpu"
    assert torch.equal(value, expected)
