"""What goes into a graph, and what runs while another thread makes one."""

from __future__ import annotations

import pytest
import torch

from psa_core.ops.modes import is_traced


class Traced(torch.nn.Module):
    """Adds whether it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + int(is_traced())


def test_graphs_are_traced_and_eager_calls_are_not() -> None:
    x = torch.zeros(1)
    assert Traced()(x) == 0
    assert torch.compile(Traced(), backend="eager", fullgraph=True)(x) == 1
    assert torch.export.export(Traced(), (x,), strict=False).module()(x) == 1


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="there the flag is for exports alone")
def test_a_call_of_one_thread_is_not_traced_while_another_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch has one flag for all of them."""
    monkeypatch.setattr(torch.compiler, "_is_compiling_flag", True)
    assert torch.compiler.is_compiling()
    assert Traced()(torch.zeros(1)) == 0
