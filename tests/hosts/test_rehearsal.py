"""Kernels that are compiled beside the warm-up: what is called for it, when, and that nothing of it reaches the run."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch

from psa_core import PSAConfig
from psa_core.hosts import rehearsal
from psa_core.hosts import run as runs
from psa_core.hosts.kept import Kept
from psa_core.hosts.place import Place
from psa_core.hosts.run import Run

CONFIG = PSAConfig(mask_mode="calibrated", map_steps=4, warmup_steps=2, min_tokens=0)
STEPS = 6


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> dict:
    found: dict = {}
    monkeypatch.setattr(rehearsal, "_threads", found)
    monkeypatch.setattr(runs, "_begun", set())
    return found


def on_a_gpu(head_dim: int = 64, tokens: int = 64) -> SimpleNamespace:
    shape = torch.Size((1, 1, tokens, head_dim))
    return SimpleNamespace(device=torch.device("cuda"), dtype=torch.float16, shape=shape, stride=lambda axis: 1)


def at(step: int) -> Place:
    return Place(step, 0, (1, 8, 8), steps=STEPS)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_short_clip_runs_as_the_run_will(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    met, attend = [], Kept.attend

    def record(kept: Kept, q: torch.Tensor, *rest: object, **more: object) -> object:
        result = attend(kept, q, *rest, **more)
        met.append((q, result))
        return result

    monkeypatch.setattr(Kept, "attend", record)
    before = torch.get_rng_state()
    q = torch.empty(1, 50, 3, 64, dtype=torch.bfloat16).transpose(1, 2)
    rehearsal.begin("key", q, CONFIG.replace(precision=precision), "torch")
    rehearsal.wait("key")
    assert not rehearsal.is_under_way("key")
    assert torch.equal(torch.get_rng_state(), before)
    chosen, kept, last = (result for _, result in met)
    assert chosen.chosen is not None
    assert (kept.chosen, kept.map_age) == (None, 1)
    assert last.measured is not None
    for short, _ in met:
        assert (short.dtype, short.shape[-1]) == (q.dtype, 64)
        # Heads lie beside each other, as the run's do.
        assert short.stride(1) == 64
        assert short.stride(2) == 64 * short.shape[1]


def test_once_for_each_kind_and_an_error_is_left_to_the_run(monkeypatch: pytest.MonkeyPatch, threads: dict) -> None:
    asked = []

    def fail(*args: object, **more: object) -> None:
        asked.append(1)
        raise RuntimeError("no memory")

    monkeypatch.setattr(Kept, "attend", fail)
    q = torch.empty(1, 2, 8, 64)
    for _ in range(2):
        rehearsal.begin("key", q, CONFIG, "torch")
        rehearsal.wait("key")
    assert len(asked) == len(threads) == 1


def test_not_beside_cuda_graphs(monkeypatch: pytest.MonkeyPatch, threads: dict) -> None:
    monkeypatch.setitem(rehearsal.sys.modules, "torch._inductor.cudagraph_trees", object())
    rehearsal.begin("key", torch.empty(1, 2, 8, 64), CONFIG, "torch")
    assert not threads


class TestInARun:
    @pytest.fixture
    def held(self, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
        """Until when the kernels are being compiled."""
        end = threading.Event()
        monkeypatch.setattr(rehearsal, "_rehearse", lambda *arguments: end.wait(60))
        monkeypatch.setattr("psa_core.hosts.reasons.triton_refusal", lambda *arguments: None)
        return end

    def test_warm_up_goes_on_meanwhile_and_the_first_sparse_call_waits(self, held: threading.Event) -> None:
        said: list[int] = []
        run = Run(CONFIG, on_compile=lambda: said.append(1))
        q = on_a_gpu()
        assert [run.dense_reason(q, q, at(step)) for step in (0, 1)] == ["warm-up"] * 2
        assert not said
        threading.Timer(0.2, held.set).start()
        assert run.dense_reason(q, q, at(2)) is None
        assert held.is_set()
        assert len(said) == 1
        assert run.dense_reason(q, q, at(3)) is None
        assert len(said) == 1

    @pytest.mark.parametrize(
        ("config", "backend", "q"),
        [
            (CONFIG, "torch", on_a_gpu()),
            (CONFIG, "auto", SimpleNamespace(**{**vars(on_a_gpu()), "device": torch.device("cpu")})),
            (CONFIG, "auto", on_a_gpu(head_dim=96)),
            (CONFIG.replace(min_tokens=65), "auto", on_a_gpu()),
            (CONFIG.replace(type="dense"), "auto", on_a_gpu()),
            (CONFIG.replace(warmup_steps=STEPS), "auto", on_a_gpu()),
        ],
    )
    def test_nothing_is_compiled_for_a_run_without_sparse_calls(
        self, held: threading.Event, threads: dict, config: PSAConfig, backend: str, q: SimpleNamespace
    ) -> None:
        run = Run(config, backend)
        assert run._rehearse(q, q, at(0)) is False
        assert not threads
