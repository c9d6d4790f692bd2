"""What is said while a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from psa_core import PSAConfig
from psa_core.attention.steps import Attended, AttentionInfo
from psa_core.hosts import reasons
from psa_core.hosts import run as runs
from psa_core.hosts.kept import Kept, Result
from psa_core.hosts.place import Place
from psa_core.hosts.progress import Progress
from psa_core.hosts.run import Run
from psa_core.report.report import Report

LEVELS = torch.ones(1, 1, 2, 2, dtype=torch.uint8)


class Said:
    """A progress whose clock each step moves on by a second, and what it has said."""

    def __init__(self) -> None:
        self.report, self.lines, self.time = Report(), [], 0.0
        self.progress = Progress(self.lines.append, self.report, lambda: self.time)

    def step(self, step: int, seconds: float = 1.0) -> str:
        self.time += seconds
        self.progress.begin_forward(step, 20)
        return self.lines[-1]


def test_it_says_the_step_and_what_was_before() -> None:
    said = Said()
    assert said.step(0) == "PSA: step 1 of 20"
    said.report.add_dense("cross-attention")
    assert said.step(1) == "PSA: step 2 of 20"
    said.report.add_dense("warm-up")
    assert said.step(2) == "PSA: step 3 of 20, all dense so far (warm-up)"
    said.report.add_sparse(2, 0, torch.tensor([0.1, 0.2]), LEVELS)
    assert said.step(3) == "PSA: step 4 of 20, density so far 0.20"
    said.report.add_sparse(3, 0, torch.tensor([0.2, 0.2, 0.4]), LEVELS)
    assert said.step(4) == "PSA: step 5 of 20, density so far 0.30"


def test_steps_that_are_short_are_not_all_said() -> None:
    said = Said()
    for step in range(10):
        said.step(step, 0.125)
        # Forwards of one step, such as those of two prompts.
        said.progress.begin_forward(step, 20)
    assert said.lines == [f"PSA: step {step} of 20" for step in (1, 3, 5, 7, 9)]


def test_kernels_that_are_compiled_are_said_until_the_next_step() -> None:
    said = Said()
    said.step(6)
    said.progress.compiling()
    assert said.lines[-1] == "PSA: step 7 of 20, compiling kernels, once"
    assert said.step(7) == "PSA: step 8 of 20"


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """How often a run of these settings says that it compiles, on a GPU that is not there."""
    monkeypatch.setattr(runs, "_begun", set())
    monkeypatch.setattr(reasons, "triton_refusal", lambda device, dtype, head_dim: None)
    monkeypatch.setattr(runs, "rehearse", lambda *args: None)

    def call(backend: str = "auto", device: str = "cuda", step: int = 0, **settings: object) -> int:
        config = PSAConfig(min_tokens=0).replace(**settings)
        met: list[int] = []
        run = Run(config, backend, on_compile=lambda: met.append(1))
        q = SimpleNamespace(device=torch.device(device), dtype=torch.float16, shape=torch.Size((1, 1, 64, 64)))
        place = Place(step, 0, (1, 8, 8))
        attended = Attended(q, lambda: AttentionInfo(LEVELS, torch.ones(1), "triton"), None)
        monkeypatch.setattr(Kept, "attend", lambda *args: Result(attended))
        monkeypatch.setattr(run.report, "time_sparse", lambda device: run.report.time_model(torch.device("meta")))
        if run.dense_reason(q, q, place) is None:
            run.attend(q, q, q, place)
        return len(met)

    return call


def test_kernels_are_compiled_once_for_each_of_their_kinds(began: Callable[..., int]) -> None:
    """At the first call of a run, also in its warm-up."""
    assert began(warmup_steps=1) == 1
    assert began() == 0
    assert began(mask_ratios={1: (0, 0.2), 2: (0.2, 0.3), 8: (0.3, 0.6), 0: (0.6, 1)}) == 0
    assert began(block_n=64) == 1
    assert began(use_sim_mask=True) == 1
    assert began(type="dense", block_n=32) == 0


@pytest.mark.parametrize("how", [{"backend": "torch"}, {"device": "cpu"}])
def test_what_has_no_kernels_compiles_none(began: Callable[..., int], how: dict[str, str]) -> None:
    assert began(**how) == 0


def test_a_run_that_was_broken_off_says_no_more() -> None:
    """Whatever its other threads go on to do."""
    said = Said()
    said.step(0)
    said.progress.end()
    said.step(1)
    said.progress.compiling()
    assert said.lines == ["PSA: step 1 of 20"]


def test_threads_ask_for_the_density_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    alone: list[bool] = []
    monkeypatch.setattr(said.progress._density, "ask", lambda: alone.append(said.progress._lock.locked()))
    said.step(0)
    assert alone == [True]
