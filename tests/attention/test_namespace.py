"""Namespaces of operators: what torch takes, and another for each folder."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from psa_core.attention.namespace import operator_namespace

PACKAGES = [
    "psa_core.attention",
    "/home/me/ComfyUI/custom_nodes/pyramid-sparse-attention.psa_core.attention",
    "/home/me/ComfyUI/custom_nodes/pyramid_sparse_attention.psa_core.attention",
    "C:\\Users\\me\\custom_nodes\\pack (2).psa_core.attention",
    # Of one length, with nothing left of them in ASCII.
    "/home/用户/custom_nodes/视频节点.psa_core.attention",
    "/home/用户/custom_nodes/注意节点.psa_core.attention",
    "/home/Jürgen/custom_nodes/psa.psa_core.attention",
    "/home/Jörgen/custom_nodes/psa.psa_core.attention",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_torch_takes_it(package: str) -> None:
    name = f"{operator_namespace(package)}_test::double"
    double = torch.library.custom_op(name, lambda x: 2 * x, mutates_args=(), schema="(Tensor x) -> Tensor")
    assert double(torch.ones(1)).item() == 2
    namespace, _, operator = name.partition("::")
    assert getattr(getattr(torch.ops, namespace), operator)(torch.ones(1)).item() == 2


def test_each_folder_has_its_own() -> None:
    for one, other in combinations(PACKAGES, 2):
        assert operator_namespace(one) != operator_namespace(other), (one, other)


def test_is_the_same_in_every_process() -> None:
    # Graphs that are kept on disk name operators by it.
    assert operator_namespace("psa_core.attention") == "psa_core_attention"
    assert operator_namespace("视频节点.psa_core") == "_____psa_core_7c0a8703"


def test_without_a_package() -> None:
    assert operator_namespace(None) == operator_namespace("psa_core")
