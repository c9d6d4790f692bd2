"""Density of a run that goes on."""

from __future__ import annotations

import pytest
import torch

from psa_core.report.report import Report
from psa_core.report.so_far import DensitySoFar

LEVELS = torch.ones(1, 1, 2, 2, dtype=torch.uint8)


def add(report: Report, shares: torch.Tensor) -> None:
    report.add_sparse(0, 0, shares, LEVELS)


def test_it_is_the_density_of_the_report() -> None:
    report = Report()
    density = DensitySoFar(report)
    assert density.ask() is None
    for _ in range(5):
        for size in torch.randint(1, 5, (7,)).tolist():
            add(report, torch.rand(size) / size)
        assert density.ask() == pytest.approx(_whole(report), rel=1e-5)
    assert density.ask() == pytest.approx(report.density(), rel=1e-5)


def test_asking_leaves_the_report_as_it_is() -> None:
    report = Report()
    add(report, torch.tensor([0.25, 0.5]))
    DensitySoFar(report).ask()
    assert [call.density for call in report.sparse_calls()] == [0.5]


def test_devices_that_cannot_tell_are_not_asked() -> None:
    report = Report()
    add(report, torch.empty(4, device="meta"))
    assert DensitySoFar(report).ask() is None


@pytest.mark.gpu
def test_it_never_waits_for_the_gpu() -> None:
    report = Report()
    density = DensitySoFar(report)
    shares = torch.rand(30, 4, device="cuda") / 4
    # CUDA waits once for a kernel that is loaded, and for memory that is pinned.
    add(report, shares[0])
    density.ask()
    torch.cuda.synchronize()
    first = density.ask()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(200_000_000)
        for share in shares:
            add(report, share)
        assert density.ask() == first
        assert density.ask() == first
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert density.ask() == pytest.approx(report.density(), rel=1e-5)


def _whole(report: Report) -> float | None:
    """As in :meth:`Report.density`, of a copy: reading a report empties what is asked here."""
    copy = Report()
    for shares in report.shares_since(0):
        add(copy, shares)
    return copy.density()
