"""Which backend runs, and why one refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._functorch.eager_transforms import grad_increment_nesting
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from psa_core import BackendError, ConfigError, pyramid_sparse_attention
from psa_core.ops import backends
from psa_core.ops import refusals as reasons
from psa_core.ops.backends import choose_backend, refusals, triton_installed, triton_refusal
from psa_core.ops.kernel_table import HOPPER, PORTABLE
from psa_core.ops.modes import tensors_differ
from psa_core.ops.refusals import device_refusal

ROOT = Path(__file__).parents[2]
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels run on the GPU here, not interpreted")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A made-up GPU on which kernels build: compute capability 8.6, named Card; with Triton 3.3."""
    monkeypatch.setattr(backends, "triton_installed", lambda: True)
    monkeypatch.setattr(backends, "_interpreted", lambda: False)
    monkeypatch.setattr(reasons, "triton_version", lambda: (3, 3))
    monkeypatch.setattr(backends, "_trial", lambda device, dtype, head_dim: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    device_refusal.cache_clear()
    yield monkeypatch
    device_refusal.cache_clear()


class TestRefusals:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("head_dim", [64, 128])
    def test_none_for_what_the_kernels_take(self, gpu: object, dtype: torch.dtype, head_dim: int) -> None:
        assert triton_refusal(CUDA, dtype, head_dim) is None

    @pytest.mark.parametrize(
        ("dtype", "head_dim", "reason"),
        [
            (torch.float16, 80, "head size 80 (kernels take 64 and 128)"),
            (torch.float32, 64, "float32 (kernels take float16 and bfloat16)"),
            (torch.float64, 128, "float64 (kernels take float16 and bfloat16)"),
        ],
    )
    def test_say_what_the_kernels_take(self, gpu: object, dtype: torch.dtype, head_dim: int, reason: str) -> None:
        assert triton_refusal(CUDA, dtype, head_dim) == reason

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize(("capability", "refused"), [((7, 5), True), ((8, 0), False), ((12, 0), False)])
    def test_old_cards(
        self, gpu: pytest.MonkeyPatch, capability: tuple[int, int], refused: bool, dtype: torch.dtype
    ) -> None:
        gpu.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        reason = "Card is older than the kernels need (Ampere, compute capability 8.0)"
        assert triton_refusal(CUDA, dtype, 64) == (reason if refused else None)

    @pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
    def test_other_devices(self, gpu: object, device: str) -> None:
        reason = f"the model runs on {device}, not on an NVIDIA or AMD GPU"
        assert triton_refusal(torch.device(device), torch.float16, 64) == reason

    def test_an_old_triton_is_not_tried(self, gpu: pytest.MonkeyPatch) -> None:
        gpu.setattr(reasons, "triton_version", lambda: (3, 2))
        gpu.setattr(backends, "_trial", lambda device, dtype, head_dim: pytest.fail("tried"))
        reason = "Triton 3.2 is older than the kernels need (3.3, from PyTorch 2.7 on)"
        assert triton_refusal(CUDA, torch.float16, 64) == reason

    @needs_triton
    def test_the_version_of_triton_is_read(self) -> None:
        assert reasons.triton_version() >= (3, 1)

    def test_a_compiler_that_fails_is_asked_once(self, gpu: pytest.MonkeyPatch) -> None:
        calls = []

        def trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
            calls.append(device)
            raise FileNotFoundError("cc")

        gpu.setattr(backends, "_trial", trial)
        for _ in range(3):
            reason = triton_refusal(CUDA, torch.float16, 64)
        assert reason == "Triton cannot run the kernels here (FileNotFoundError; the log has the details)"
        assert len(calls) == 1

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
            RuntimeError("Triton Error [CUDA]: out of memory"),
            RuntimeError("HIP error: Out of memory"),
            MemoryError(),
        ],
        ids=["torch", "Triton", "driver", "host"],
    )
    def test_a_trial_without_memory_is_repeated(
        self, gpu: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        outcomes: list[Exception | None] = [error, error, None]

        def trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
            outcome = outcomes.pop(0)
            if outcome is not None:
                raise outcome

        gpu.setattr(backends, "_trial", trial)
        x = FakeCuda(torch.empty(1, 1, 1, 64, dtype=torch.float16, device="meta"))
        assert triton_refusal(CUDA, torch.float16, 64) == "no free memory to try the Triton kernels"
        with pytest.raises(BackendError, match="no free memory to try the Triton kernels"):
            choose_backend("triton", *3 * [x])
        assert len(caplog.records) == 2
        # What is remembered is the answer: nothing is left to raise or to return.
        assert [choose_backend("triton", *3 * [x]) for _ in range(3)] == ["triton"] * 3
        assert not outcomes

    def test_too_little_shared_memory_is_remembered(self, gpu: pytest.MonkeyPatch) -> None:
        calls = []

        def trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
            calls.append(device)
            raise RuntimeError("out of resource: shared memory, Required: 131072, Hardware limit: 101376")

        gpu.setattr(backends, "_trial", trial)
        assert "RuntimeError" in str([triton_refusal(CUDA, torch.float16, 64) for _ in range(3)][-1])
        assert len(calls) == 1

    @needs_triton
    def test_hopper_without_memory_leaves_the_portable_kernels(self, gpu: pytest.MonkeyPatch) -> None:
        from psa_core.ops.attention import dispatch

        def trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        gpu.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        gpu.setattr(dispatch, "_trial", trial)
        said = "no free memory to try the kernel for Hopper"
        assert refusals(CUDA, torch.float16, 64) == {PORTABLE: None, HOPPER: said}
        gpu.setattr(dispatch, "_trial", lambda device, dtype, head_dim: None)
        assert refusals(CUDA, torch.float16, 64) == {PORTABLE: None, HOPPER: None}

    @needs_triton
    @interpreted
    def test_the_interpreter_takes_what_numpy_knows(self) -> None:
        assert triton_refusal(CPU, torch.float32, 64) is None
        assert triton_refusal(CPU, torch.float16, 64) is None
        assert triton_refusal(CPU, torch.bfloat16, 64) == "the model runs on cpu, not on an NVIDIA or AMD GPU"


class TestChoice:
    def test_automatic_on_a_gpu_takes_triton_when_it_can(self, gpu: object) -> None:
        x = torch.empty(1, 1, 1, 64, dtype=torch.float16, device="meta")
        assert choose_backend("auto", *3 * [FakeCuda(x)]) == "triton"
        assert choose_backend("auto", *3 * [FakeCuda(x.float())]) == "torch"
        assert choose_backend("torch", *3 * [FakeCuda(x)]) == "torch"
        with pytest.raises(BackendError, match=r"'triton': float32 \(kernels take .*use backend 'auto' or 'torch'"):
            choose_backend("triton", *3 * [FakeCuda(x.float())])

    @pytest.mark.parametrize("wanted", [0, 1, 2])
    def test_automatic_takes_torch_for_gradients(self, gpu: object, wanted: int) -> None:
        qkv = [FakeCuda(torch.empty(1, 1, 1, 64, dtype=torch.float16, device="meta")) for _ in range(3)]
        qkv[wanted].requires_grad = True
        assert choose_backend("auto", *qkv) == choose_backend("torch", *qkv) == "torch"
        with pytest.raises(BackendError, match="'triton': the kernels have no gradients, which q, k or v require"):
            choose_backend("triton", *qkv)
        with pytest.raises(ConfigError, match="backend = 'cuda'"):
            choose_backend("cuda", *qkv)
        with torch.no_grad():
            assert choose_backend("auto", *qkv) == choose_backend("triton", *qkv) == "triton"

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_automatic_on_a_cpu_is_torch(self, dtype: torch.dtype) -> None:
        assert choose_backend("auto", *3 * [torch.ones(1, 1, 1, 64, dtype=dtype)]) == "torch"

    def test_unknown_name(self) -> None:
        with pytest.raises(ConfigError, match="backend = 'cuda': must be one of auto, triton, torch"):
            choose_backend("cuda", *3 * [torch.ones(1, 1, 1, 64)])

    @needs_triton
    def test_a_refusal_reaches_the_caller(self) -> None:
        x = torch.randn(1, 1, 40, 64, dtype=torch.bfloat16)
        with pytest.raises(BackendError, match="the model runs on cpu"):
            pyramid_sparse_attention(x, x, x, backend="triton")


class TestTakenOut:
    """The environment variable ``PSA_BACKEND``."""

    def test_torch_leaves_triton_out(self, gpu: pytest.MonkeyPatch) -> None:
        gpu.setenv("PSA_BACKEND", "torch")
        x = FakeCuda(torch.empty(1, 1, 1, 64, dtype=torch.float16, device="meta"))
        said = "PSA_BACKEND = torch takes the Triton kernels out"
        assert triton_refusal(CUDA, torch.float16, 64) == said
        assert choose_backend("auto", *3 * [x]) == choose_backend("torch", *3 * [x]) == "torch"
        with pytest.raises(BackendError, match=f"'triton': {said}; use backend 'auto' or 'torch'"):
            choose_backend("triton", *3 * [x])

    @needs_triton
    def test_portable_leaves_hopper_out(self, gpu: pytest.MonkeyPatch) -> None:
        from psa_core.ops.attention import dispatch

        gpu.setattr(dispatch, "_trial", lambda device, dtype, head_dim: None)
        gpu.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        assert refusals(CUDA, torch.float16, 64) == {PORTABLE: None, HOPPER: None}
        gpu.setenv("PSA_BACKEND", "portable")
        said = "PSA_BACKEND = portable takes the kernel for Hopper out"
        assert refusals(CUDA, torch.float16, 64) == {PORTABLE: None, HOPPER: said}

    @pytest.mark.parametrize("value", ["", "auto"])
    def test_nothing(self, gpu: pytest.MonkeyPatch, value: str) -> None:
        gpu.setenv("PSA_BACKEND", value)
        assert triton_refusal(CUDA, torch.float16, 64) is None

    def test_a_wrong_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PSA_BACKEND", "cuda")
        x = torch.randn(1, 1, 40, 64)
        with pytest.raises(ConfigError, match="PSA_BACKEND = 'cuda': must be one of auto, portable, torch"):
            pyramid_sparse_attention(x, x, x)


@pytest.mark.parametrize("mode", [FakeTensorMode, grad_increment_nesting])
def test_a_trial_runs_outside_of_all_modes(gpu: pytest.MonkeyPatch, mode: Any) -> None:
    made = []
    gpu.setattr(backends, "_trial", lambda device, dtype, head_dim: made.append(torch.ones(1)))
    with mode():
        assert triton_refusal(CUDA, torch.float16, 64) is None
        assert tensors_differ()
    assert not isinstance(made[0], FakeTensor)
    assert not torch._C._functorch.is_functorch_wrapped_tensor(made[0])


class FakeCuda:
    """What a choice reads of a tensor, on a GPU."""

    device = CUDA

    def __init__(self, x: torch.Tensor) -> None:
        self.dtype, self.shape, self.requires_grad = x.dtype, x.shape, x.requires_grad


# Runs in a process of its own, where nothing has imported Triton yet.
WITHOUT_TRITON = """
import importlib.abc, importlib.machinery, sys, types

{absent}

import torch
import psa_core

x = torch.randn(1, 2, 300, 64)
out, info = psa_core.pyramid_sparse_attention(x, x, x, grid=(3, 10, 10), return_info=True)
assert info.backend == "torch" and out.isfinite().all()
assert "psa_core.ops.attention.triton" not in sys.modules
print(psa_core.ops.backends.triton_refusal(torch.device("cuda"), torch.float16, 64))
try:
    psa_core.pyramid_sparse_attention(x, x, x, backend="triton")
except psa_core.BackendError as error:
    print(error)
"""

FINDER = """
class Broken(importlib.abc.Loader):
    def exec_module(self, module):
        raise OSError("libtriton.so is missing")

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            {found}

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("absent", "warned"),
    [
        (FINDER.format(found="raise ModuleNotFoundError(name, name=name)"), False),
        # Found and broken when it runs, as an installation is: torch looks for Triton without importing it.
        (FINDER.format(found="return importlib.machinery.ModuleSpec(name, Broken())"), True),
        ("sys.modules['triton'] = types.ModuleType('triton')", True),
    ],
    ids=["not installed", "broken", "an empty module in its place"],
)
def test_runs_without_triton(absent: str, warned: bool) -> None:
    code = WITHOUT_TRITON.format(absent=absent)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Triton is not installed",
        "backend = 'triton': the model runs on cpu, not on an NVIDIA or AMD GPU; use backend 'auto' or 'torch'",
    ]
    assert ("Triton is installed and does not import" in done.stderr) == warned
