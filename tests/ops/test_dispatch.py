"""Which attention kernel runs, and why the one for Hopper does not. No GPU needed: the kernels are stand-ins."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch

from psa_core import PSAConfig, pyramid_sparse_attention
from psa_core.ops.backends import triton_installed
from psa_core.ops.refusals import device_refusal

from ..support.tensors import Shape, random_levels, random_qkv

if not triton_installed():
    pytest.skip("Triton is not installed", allow_module_level=True)

from psa_core.ops.attention import dispatch
from psa_core.ops.attention.dispatch import hopper_refusal, pyramid_attention, runs_int8_on_hopper
from psa_core.ops.block_list.build import build_block_list
from psa_core.ops.pyramid.rows import build_pyramid

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A made-up Hopper GPU on which the kernel runs."""
    monkeypatch.setattr(dispatch, "_trial", lambda device, dtype, head_dim: None)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    device_refusal.cache_clear()
    yield monkeypatch
    device_refusal.cache_clear()


class OnHopper:
    """What a choice reads of a tensor, on a GPU."""

    device, dtype = CUDA, torch.float16

    def __init__(self, head_dim: int = 128) -> None:
        self.shape = torch.Size((1, 2, 300, head_dim))


class Run(NamedTuple):
    """One call of a kernel."""

    kernel: str
    arguments: tuple[Any, ...]


@pytest.fixture
def runs(gpu: pytest.MonkeyPatch) -> list[Run]:
    """The kernels that ran, which are stand-ins."""
    from psa_core.ops.attention import hopper

    met: list[Run] = []
    gpu.setattr(dispatch, "pyramid_attention_triton", lambda *arguments: met.append(Run("portable", arguments)))
    gpu.setattr(hopper, "pyramid_attention_hopper", lambda *arguments: met.append(Run("hopper", arguments)))
    return met


class TestRefusals:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("head_dim", [64, 128])
    def test_none_on_hopper(self, gpu: object, dtype: torch.dtype, head_dim: int) -> None:
        assert hopper_refusal(CUDA, dtype, head_dim) is None

    def test_a_cpu(self, gpu: object) -> None:
        assert hopper_refusal(CPU, torch.float16, 128) == "cpu is no Hopper GPU"

    def test_an_amd_gpu_of_the_same_capability(self, gpu: pytest.MonkeyPatch) -> None:
        gpu.setattr(torch.version, "hip", "6.4")
        assert hopper_refusal(CUDA, torch.float16, 128) is not None

    @pytest.mark.parametrize("capability", [(8, 0), (8, 9), (10, 0), (12, 0)])
    def test_another_gpu(self, gpu: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
        gpu.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        assert hopper_refusal(CUDA, torch.float16, 128) == "Card is no Hopper GPU"

    def test_one_gpu_is_not_another(self, gpu: pytest.MonkeyPatch) -> None:
        gpu.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0) if device.index == 0 else (8, 9))
        assert hopper_refusal(CUDA, torch.float16, 128) is None
        assert hopper_refusal(torch.device("cuda", 1), torch.float16, 128) == "Card is no Hopper GPU"


class TestChoice:
    ARGUMENTS = ("k", "v", "block list", "pyramid")

    @pytest.mark.parametrize("head_dim", [64, 128])
    @pytest.mark.parametrize("orders", [None, "orders"])
    @pytest.mark.parametrize("block_n", [32, 128])
    def test_hopper_where_it_can(self, runs: list[Run], head_dim: int, orders: str | None, block_n: int) -> None:
        q = OnHopper(head_dim)
        pyramid_attention(q, *self.ARGUMENTS, 128, block_n, orders)
        assert runs == [("hopper", (q, *self.ARGUMENTS, block_n, orders, None, None))]

    def test_hopper_under_the_causal_mask_too(self, runs: list[Run]) -> None:
        q = OnHopper()
        pyramid_attention(q, *self.ARGUMENTS, 128, 128, hidden="hidden keys")
        assert runs == [("hopper", (q, *self.ARGUMENTS, 128, None, None, "hidden keys"))]

    def test_half_query_blocks_go_portable(self, runs: list[Run]) -> None:
        q = OnHopper()
        pyramid_attention(q, *self.ARGUMENTS, 64, 128, None)
        assert runs == [("portable", (q, *self.ARGUMENTS, 64, 128, None, None, None))]

    def test_other_gpus_go_portable(self, runs: list[Run], gpu: pytest.MonkeyPatch) -> None:
        gpu.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
        q = OnHopper()
        pyramid_attention(q, *self.ARGUMENTS, 128, 128, "orders", "orders of q")
        assert runs == [("portable", (q, *self.ARGUMENTS, 128, 128, "orders", "orders of q", None))]

    def test_a_trial_that_fails_is_asked_once_and_goes_portable(
        self, runs: list[Run], gpu: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked = []

        def trial(*what: Any) -> None:
            asked.append(what)
            raise AttributeError("gluon has moved")

        gpu.setattr(dispatch, "_trial", trial)
        with caplog.at_level(logging.DEBUG):
            for _ in range(3):
                pyramid_attention(OnHopper(), *self.ARGUMENTS, 128, 128)
        assert [run.kernel for run in runs] == ["portable"] * 3
        assert asked == [(CUDA, torch.float16, 128)]
        (said,) = caplog.records
        assert said.levelno == logging.WARNING
        assert "The attention kernel for Hopper does not run here; the portable one does" in caplog.text
        assert "gluon has moved" in caplog.text
        reason = "Triton cannot run it here (AttributeError; the log has the details)"
        assert hopper_refusal(CUDA, torch.float16, 128) == reason

    def test_a_kernel_that_does_not_import_goes_portable(self, runs: list[Run], gpu: pytest.MonkeyPatch) -> None:
        gpu.undo()
        gpu.setattr(torch.version, "hip", None)
        gpu.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        gpu.setattr(dispatch, "pyramid_attention_triton", lambda *arguments: runs.append(Run("portable", arguments)))
        gpu.setitem(__import__("sys").modules, f"{dispatch.__package__}.hopper", None)
        device_refusal.cache_clear()
        pyramid_attention(OnHopper(), *self.ARGUMENTS, 128, 128)
        assert [run.kernel for run in runs] == ["portable"]
        assert "the log has the details" in str(hopper_refusal(CUDA, torch.float16, 128))


class TestInt8:
    @pytest.fixture(autouse=True)
    def _trial_passes(self, gpu: pytest.MonkeyPatch) -> None:
        gpu.setattr(dispatch, "_int8_trial", lambda device, dtype, head_dim: None)

    @pytest.mark.parametrize("head_dim", [64, 128])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_on_hopper(self, head_dim: int, dtype: torch.dtype) -> None:
        assert runs_int8_on_hopper(CUDA, dtype, head_dim, 128, 128)

    @pytest.mark.parametrize(("block_m", "block_n"), [(64, 128), (128, 64), (128, 32)])
    def test_not_in_smaller_blocks(self, block_m: int, block_n: int) -> None:
        assert not runs_int8_on_hopper(CUDA, torch.float16, 128, block_m, block_n)

    def test_not_elsewhere(self, gpu: pytest.MonkeyPatch) -> None:
        assert not runs_int8_on_hopper(CPU, torch.float16, 128, 128, 128)
        gpu.setattr(torch.cuda, "get_device_capability", lambda device: (12, 0))
        assert not runs_int8_on_hopper(CUDA, torch.float16, 128, 128, 128)

    def test_not_where_the_portable_kernels_are_asked_for(self, gpu: pytest.MonkeyPatch) -> None:
        gpu.setenv("PSA_BACKEND", "portable")
        assert not runs_int8_on_hopper(CUDA, torch.float16, 128, 128, 128)

    def test_a_trial_that_fails_takes_it_out_alone(
        self, gpu: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def trial(*what: Any) -> None:
            raise RuntimeError("INT8 attention is 0.7 away from exact attention")

        gpu.setattr(dispatch, "_int8_trial", trial)
        assert not runs_int8_on_hopper(CUDA, torch.float16, 128, 128, 128)
        assert "The INT8 attention kernel for Hopper does not run here" in caplog.text
        assert hopper_refusal(CUDA, torch.float16, 128) is None


@pytest.mark.parametrize(
    ("precision", "more", "kernel"),
    [("int8", {}, "hopper"), ("int8+fp8", {}, "portable"), ("int8", {"hidden": "keys"}, "portable"),
     ("int8", {"exact_heads": "some"}, "portable"), ("int8", {"measured": (0,)}, "portable")],
)  # fmt: skip
def test_int8_is_hoppers_where_every_head_is_quantised_and_sees_all_keys(
    precision: str, more: dict[str, Any], kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("tests/ops/test_hopper_int8.py has the GPU's")
    from psa_core.attention import quantised
    from psa_core.ops.attention import hopper

    class PacksError(Exception):
        pass

    def packs(*_: Any) -> None:
        raise PacksError

    def attends(q: Any, k: Any, v: Any, lists: Any, pyramid: Any, block_n: int, *orders: Any, packed: Any) -> Any:
        assert packed.k.shape[3:] == (128, 64)
        assert packed.v.dtype == torch.float16
        assert pyramid.max_level == 4
        return q

    monkeypatch.setattr(quantised, "runs_int8_on_hopper", lambda *_: True)
    monkeypatch.setattr(hopper, "pyramid_attention_hopper", attends)
    monkeypatch.setattr(quantised, "pack_for", packs)
    q, k, v = random_qkv(Shape(1, 1, 130, 130), torch.float16)
    levels = torch.tensor([[1, 4], [4, 1]], dtype=torch.uint8)[None, None]
    call = q, k, v, levels, 128, 128, 4, precision
    if kernel == "hopper":
        assert quantised.attend_quantised(*call, **more).out is q
    else:
        with pytest.raises(PacksError):
            quantised.attend_quantised(*call, **more)


def test_the_trial_is_a_call_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """In orders, on arguments that the portable kernel takes as well."""
    from psa_core.ops.attention import hopper
    from psa_core.ops.attention.triton import pyramid_attention_triton

    met = []

    def stand_in(q: Any, k: Any, v: Any, block_list: Any, pyramid: Any, block_n: int, orders: Any) -> torch.Tensor:
        met.append(orders)
        out = pyramid_attention_triton(q, k, v, block_list, pyramid, 128, block_n, orders)
        assert torch.equal(out, torch.ones_like(q))
        return out

    monkeypatch.setattr(hopper, "pyramid_attention_hopper", stand_in)
    dispatch._trial(CPU, torch.float16, 64)
    assert [orders is None for orders in met] == [False]


def test_the_whole_op_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("tests/ops/test_gpu.py has the GPU's")
    asked = []
    monkeypatch.setattr(dispatch, "hopper_refusal", lambda *what: asked.append(what) or "no")
    qkv = random_qkv(Shape(1, 1, 130, 130), torch.float16)
    pyramid_sparse_attention(*qkv, PSAConfig(block_n=32), backend="triton")
    assert asked == [(CPU, torch.float16, 64)]


@pytest.mark.parametrize("block_m", [64, 128])
def test_on_a_cpu_it_is_the_portable_kernel(block_m: int) -> None:
    if torch.cuda.is_available():
        pytest.skip("tests/ops/test_gpu.py has the GPU's")
    from psa_core.ops.attention.triton import pyramid_attention_triton

    shape = Shape(1, 2, 150, 150, 64, block_m, 32)
    q, k, v = random_qkv(shape, torch.float16)
    block_list = build_block_list(random_levels(shape), 32, 32, 150, "triton")
    arguments = q, k, v, block_list, build_pyramid(k, v, 32, "triton"), block_m, 32
    assert torch.equal(pyramid_attention(*arguments), pyramid_attention_triton(*arguments))
