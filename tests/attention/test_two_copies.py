"""The library twice in one process: installed as ``psa_core``, and inside a ComfyUI pack as ``<pack>.psa_core``."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import psa_core
from psa_core.ops.backends import triton_installed

from ..support.tensors import DEVICE, Shape, random_qkv

ROOT = Path(__file__).parents[2]
BACKENDS = [
    "torch",
    pytest.param("triton", marks=pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")),
]


@pytest.fixture
def packed() -> Iterator[ModuleType]:
    """A second copy, under a pack named as ComfyUI names one: by its path."""
    name = "/home/me/ComfyUI_x_0/custom_nodes/pyramid-sparse-attention"
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None
    # The pack's own __init__ needs ComfyUI and is not run.
    sys.modules[name] = importlib.util.module_from_spec(spec)
    yield importlib.import_module(f"{name}.psa_core")
    for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[module]


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_work(packed: ModuleType, backend: str) -> None:
    qkv = random_qkv(Shape(1, 2, 150, 150), torch.float16 if backend == "triton" else torch.float32, DEVICE)
    outs = [
        copy_.pyramid_sparse_attention(*qkv, copy_.PSAConfig(block_n=32), grid=(1, 10, 15), backend=backend)
        for copy_ in (psa_core, packed, psa_core)
    ]
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_compile(packed: ModuleType, backend: str) -> None:
    qkv = random_qkv(Shape(1, 2, 150, 150), torch.float16 if backend == "triton" else torch.float32, DEVICE)

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
        return [
            copy_.pyramid_sparse_attention(q, k, v, copy_.PSAConfig(block_n=32), grid=(1, 10, 15), backend=backend)
            for copy_ in (psa_core, packed, psa_core)
        ]

    torch._dynamo.reset()
    for out, expected in zip(torch.compile(call, fullgraph=True, backend="aot_eager")(*qkv), call(*qkv), strict=True):
        assert torch.equal(out, expected)
    names = {importlib.import_module(f"{copy_.__name__}.attention.operator")._NAME for copy_ in (psa_core, packed)}
    assert len(names) == 2


def test_they_share_nothing_and_know_the_same_presets(packed: ModuleType) -> None:
    assert packed.attention.__file__ == psa_core.attention.__file__
    modules = [module for name, module in sys.modules.items() if name.startswith(packed.__name__)]
    assert len(modules) > 10
    for module in modules:
        for name, value in vars(module).items():
            origin = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            assert str(origin).partition(".")[0] != "psa_core", f"{name} in {module.__name__} is of the other copy"
    assert repr(packed.load_presets()) == repr(psa_core.load_presets())


def test_settings_of_the_packed_copy_can_be_copied(packed: ModuleType) -> None:
    config = packed.load_preset("Wan2.1_14b")
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config
        assert type(other) is packed.PSAConfig
