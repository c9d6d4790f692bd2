"""Kernels compiled before a run calls them: what is gone through for it, when, and that the run is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from psa_core import PSAConfig
from psa_core.hosts import rehearsal
from psa_core.hosts import run as runs
from psa_core.hosts.kept import Kept, Result
from psa_core.hosts.place import Place
from psa_core.hosts.rehearsal import rehearse, rehearse_prompt
from psa_core.hosts.run import Run
from psa_core.ops.backends import triton_installed
from psa_core.ops.triton_version import triton_version
from psa_core.settings.sinks import text_in_front

CONFIG = PSAConfig(mask_mode="calibrated", map_steps=4, warmup_steps=2, min_tokens=0)
STEPS = 6


@pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
@pytest.mark.parametrize("sinks", [False, True])
def test_a_short_clip_goes_through_what_the_run_will(monkeypatch: pytest.MonkeyPatch, sinks: bool) -> None:
    met: list[tuple[torch.Tensor, Result]] = []
    attend = Kept.attend

    def record(kept: Kept, q: torch.Tensor, *rest: Any, **more: Any) -> Result:
        result = attend(kept, q, *rest, **more)
        met.append((q, result))
        return result

    monkeypatch.setattr(Kept, "attend", record)
    before = torch.get_rng_state()
    q = torch.empty(1, 50, 3, 64, dtype=torch.bfloat16).transpose(1, 2)
    rehearse(q, CONFIG, "torch", sinks)
    assert torch.equal(torch.get_rng_state(), before)
    chosen, kept, last = (result for _, result in met)
    assert chosen.chosen is not None
    assert (kept.chosen, kept.map_age) == (None, 1)
    assert last.measured is not None
    for short, _ in met:
        assert (short.dtype, short.shape[2:]) == (q.dtype, (2048 + 64 * sinks, 64))
        # Heads lie beside each other, as the run's do.
        assert (short.stride(1), short.stride(2)) == (64, 64 * short.shape[1])


@pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
def test_a_short_prompt_is_read_as_the_run_will(monkeypatch: pytest.MonkeyPatch) -> None:
    met = []
    attend = rehearsal.pyramid_sparse_attention

    def record(*tensors: Any, **options: Any) -> torch.Tensor:
        met.append((tensors, options))
        return attend(*tensors, **options)

    monkeypatch.setattr(rehearsal, "pyramid_sparse_attention", record)
    q = torch.empty(1, 50, 6, 64, dtype=torch.bfloat16).transpose(1, 2)
    rehearse_prompt(q, 3, CONFIG, "torch")
    (((query, k, v, config), options),) = met
    assert [x.shape for x in (query, k, v)] == [(1, 6, 2048, 64), (1, 2, 2048, 64), (1, 2, 2048, 64)]
    assert (query.dtype, query.stride(1), config) == (q.dtype, 64, CONFIG)
    assert options == {"backend": "torch", "causal": True}


def test_an_error_is_left_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **more: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(Kept, "attend", fail)
    rehearse(torch.empty(1, 2, 8, 64), CONFIG, "torch")


def test_nothing_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "triton_installed", lambda: False)
    monkeypatch.setattr(Kept, "attend", lambda *args, **more: pytest.fail("nothing is there to compile"))
    rehearse(torch.empty(1, 2, 8, 64), CONFIG, "torch")


class TestInARun:
    @pytest.fixture
    def rehearsed(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple]]:
        """What a run of some settings has compiled at the first of its steps, on a GPU that is not there."""
        monkeypatch.setattr(runs, "_begun", set())
        monkeypatch.setattr("psa_core.hosts.reasons.triton_refusal", lambda *arguments: None)

        def call(config: PSAConfig = CONFIG, backend: str = "auto", device: str = "cuda", **place: Any) -> list[tuple]:
            met: list[tuple] = []
            for name in ("rehearse", "rehearse_prompt"):
                monkeypatch.setattr(runs, name, lambda q, *arguments: met.append(arguments))
            shape = torch.Size((1, 1, 64 + sum(sink.stop - sink.start for sink in place.get("sinks", ())), 64))
            q: Any = SimpleNamespace(device=torch.device(device), dtype=torch.float16, shape=shape)
            run = Run(config, backend)
            for step in range(STEPS):
                run.dense_reason(q, q, Place(step, 0, (1, 8, 8), steps=STEPS, **place))
            return met

        return call

    def test_once_for_the_first_sparse_step(self, rehearsed: Callable[..., list[tuple]]) -> None:
        ((config, backend, sinks),) = rehearsed(CONFIG.replace(early_density=1.5, map_steps=1))
        assert (backend, sinks) == ("auto", False)
        assert config.target_density == pytest.approx(1.5 * CONFIG.target_density)
        assert not rehearsed(), "they are there"
        ((_, _, sinks),) = rehearsed(CONFIG.replace(block_n=64), sinks=text_in_front(8))
        assert sinks

    def test_later_calls_of_a_step_only_look_it_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They take microseconds of the host, of which every layer has a hundred."""
        monkeypatch.setattr(runs, "_begun", set())
        monkeypatch.setattr(runs, "rehearse", lambda *arguments: None)
        monkeypatch.setattr("psa_core.hosts.reasons.triton_refusal", lambda *arguments: None)
        run, asked = Run(CONFIG, "auto"), []
        monkeypatch.setattr(runs, "_config_of_call", lambda config, *arguments: asked.append(arguments) or config)
        for step in range(2):
            for layer in range(3):
                for head_dim in (64, 128):
                    shape = torch.Size((1, 1, 64, head_dim))
                    q: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float16, shape=shape)
                    run.dense_reason(q, q, Place(step, layer, (1, 8, 8), steps=STEPS))
        assert len(asked) == 4, "once a step for each of the head sizes"

    def test_prompts_have_kernels_of_their_own(self, rehearsed: Callable[..., list[tuple]]) -> None:
        assert rehearsed()
        ((group, config, backend),) = rehearsed(causal=True)
        assert (group, config, backend) == (1, CONFIG, "auto")

    @pytest.mark.parametrize(
        "how",
        [
            {"backend": "torch"},
            {"device": "cpu"},
            {"config": CONFIG.replace(min_tokens=65)},
            {"config": CONFIG.replace(type="dense")},
        ],
        ids=lambda how: next(iter(how)),
    )
    def test_nothing_where_no_kernels_are_known(
        self, rehearsed: Callable[..., list[tuple]], how: dict[str, Any]
    ) -> None:
        assert not rehearsed(**how)


def test_no_length_compiles_another_kernel() -> None:
    """Ten of them, by runs that choose, keep maps and measure again, and of prompts; on a GPU that is not there."""
    if triton_version() < (3, 4):
        pytest.skip("this Triton does not say what it would compile")
    script = Path(__file__).parents[1] / "support" / "compiled_variants.py"
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    said = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True).stdout
    ways = [json.loads(line) for line in said.splitlines()]
    assert [way["way"] for way in ways] == ["fixed", "capped", "calibrated", "int8", "causal"]
    for way in ways:
        assert way["ahead"]["_select_levels"] == {32: 7, 128: 5}[way["block_n"]], way
        assert way["later"] == {}, way


# Two processes with a cache of their own, because a process has its kernels already.
_CALL = """
import sys, torch
from pathlib import Path
from psa_core import PSAConfig
from psa_core.hosts.kept import Kept
from psa_core.hosts.place import Place
from psa_core.hosts.rehearsal import rehearse
config = PSAConfig(mask_mode="calibrated", map_steps=4, min_tokens=0)
q, k, v = (torch.randn(2, 7020, 3, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(3))
kernels = lambda: len(list(Path(sys.argv[1]).rglob("*.cubin")))
rehearse(q, config)
before, kept = kernels(), Kept()
for step in range(6):
    kept.attend(q, k, v, config, Place(step, 0, (3, 45, 52), steps=6, conditions=2), "auto", last=step == 5)
torch.cuda.synchronize()
print(before, kernels())
"""


@pytest.mark.gpu
def test_a_run_finds_its_kernels_compiled(tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", _CALL, str(tmp_path)]
    root = Path(__file__).parents[2]
    said = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True).stdout
    ahead, all_of_them = map(int, said.split())
    assert ahead > 8
    assert all_of_them - ahead <= 2, said
