"""Calls in another precision than the tensors': which one runs, and which heads it is too coarse for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from psa_core import PSAConfig, RadialMask, Recipe, pyramid_sparse_attention
from psa_core.attention import quantised
from psa_core.attention.attend import attend
from psa_core.attention.recipes import Choice
from psa_core.attention.steps import sparse_attention
from psa_core.hosts import kept_choice
from psa_core.hosts.kept import Kept
from psa_core.hosts.place import Place
from psa_core.ops import precision
from psa_core.ops.backends import triton_installed
from psa_core.ops.precision import PRECISIONS, precision_that_runs

from ..support.tensors import DEVICE, Shape, random_levels, random_qkv, relative_error

needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float16
GRID = (2, 8, 10)
CONFIG = PSAConfig(block_m=64, block_n=64, importance="mean", mask_ratios={1: (0.0, 0.8), 8: (0.8, 1.0), 0: (1.0, 1.0)})
MASK = RadialMask(block_size=32)


def coarse_for_one_head() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of two heads the first has keys with a channel so large that INT8 leaves little of the others, and queries that
    hardly look at it.

    Values of the second have much in common, so that what FP8 adds evens out.
    """
    q, k, v = random_qkv(Shape(1, 2, 160, 160), DTYPE)
    q[:, 0, :, 5] /= 50
    k[:, 0, :, 5] *= 50
    v[:, 1] += 2
    return q, k, v


@needs_triton
@pytest.mark.parametrize("config", [CONFIG, CONFIG.replace(radial=MASK)], ids=["chosen", "masked"])
def test_int8_is_near(config: PSAConfig) -> None:
    q, k, v = random_qkv(Shape(2, 2, 160, 160), DTYPE)
    call = {"grid": GRID, "backend": "triton", "return_info": True}
    exact, info = pyramid_sparse_attention(q, k, v, config, **call)
    assert info.precision == "bf16"
    out, info = pyramid_sparse_attention(q, k, v, config.replace(precision="int8"), **call)
    assert info.precision == "int8"
    assert 0 < relative_error(out, exact) < 0.02


@needs_triton
@pytest.mark.parametrize("config", [CONFIG, CONFIG.replace(radial=MASK)], ids=["chosen", "masked"])
def test_auto_leaves_out_the_heads_that_it_is_too_coarse_for(
    config: PSAConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSA_BACKEND", "portable")
    q, k, v = coarse_for_one_head()
    exact = pyramid_sparse_attention(q, k, v, config, grid=GRID, backend="triton")
    call = q, k, v, config.replace(precision="auto"), GRID, (), None, "triton"
    attended = sparse_attention(*call)
    assert attended.info().precision == precision_that_runs("auto", DEVICE, DTYPE, 64) != "bf16"
    assert attended.exact_heads is not None
    assert attended.exact_heads.tolist() == [[1, 0]]
    assert relative_error(attended.out[:, 0], exact[:, 0]) < 0.01
    assert relative_error(attended.out[:, 1], exact[:, 1]) > 0.001
    none = torch.zeros_like(attended.exact_heads)
    assert relative_error(sparse_attention(*call, exact_heads=none).out[:, 0], exact[:, 0]) > 0.02


@needs_triton
@pytest.mark.usefixtures("poisoned_memory")
def test_an_exact_head_reads_pooled_keys_that_it_shares() -> None:
    from psa_core.attention.quantised import attend_quantised

    shape = Shape(1, 4, 130, 130, 64, 64, 64)
    q, k, v = random_qkv(shape, DTYPE)
    call = q, k[:, :2], v[:, :2], random_levels(shape), 64, 64, 64
    exact, _ = attend(*call, "triton")
    exact_heads = torch.tensor([[0, 0, 0, 1]], dtype=torch.uint8, device=DEVICE)
    out = attend_quantised(*call, "int8", exact_heads=exact_heads).out
    assert relative_error(out[:, 3], exact[:, 3]) < (0.01 if DEVICE.type == "cuda" else 1e-3)
    assert 1e-3 < relative_error(out[:, :3], exact[:, :3]) < 0.03


@needs_triton
def test_a_run_measures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from psa_core.attention import quantised

    monkeypatch.setenv("PSA_BACKEND", "portable")
    q, k, v = coarse_for_one_head()
    kept = Kept()
    config = CONFIG.replace(precision="auto")
    first = kept.attend(q, k, v, config, Place(3, 0, GRID), "triton").attended
    monkeypatch.delattr(quantised, "_too_coarse")
    later = kept.attend(q, k, v, config, Place(4, 0, GRID), "triton").attended
    assert torch.equal(later.out, first.out)
    with pytest.raises(NameError):
        kept.attend(q, k, v, config, Place(4, 1, GRID), "triton")


@needs_triton
def test_a_head_that_quantising_alone_makes_nan_of_stays_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = quantised.quantised_attention_triton

    def spoilt(*call: Any) -> torch.Tensor:
        out, exact = attention(*call), call[9]
        return out.masked_fill(exact.which[:, :1, None, None] == 0, torch.nan)

    monkeypatch.setattr(quantised, "quantised_attention_triton", spoilt)
    monkeypatch.setenv("PSA_BACKEND", "portable")
    q, k, v = random_qkv(Shape(1, 2, 160, 160), DTYPE)
    out = sparse_attention(q, k, v, CONFIG.replace(precision="auto"), GRID, (), None, "triton")
    assert out.exact_heads is not None
    assert out.exact_heads.all()


@pytest.fixture
def int8_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` is INT8 and no FP8, which adds too much to every head of random tensors, and no GPU's own kernel."""
    monkeypatch.setenv("PSA_BACKEND", "portable")
    monkeypatch.setattr(precision, "_FP8", (99, 0))


@needs_triton
@pytest.mark.usefixtures("int8_alone")
@pytest.mark.parametrize("map_steps", [1, 2])
def test_the_first_of_two_prompts_decides_together_and_in_turn(map_steps: int) -> None:
    sides = coarse_for_one_head(), random_qkv(Shape(1, 2, 160, 160), DTYPE)
    both = [torch.cat(x) for x in zip(*sides, strict=True)]
    in_turn, together, config = Kept(), Kept(), CONFIG.replace(precision="auto", map_steps=map_steps)
    alone = [in_turn.attend(*side, config, Place(0, 0, GRID), "triton").attended for side in sides]
    attended = together.attend(*both, config, Place(0, 0, GRID, conditions=2), "triton").attended
    assert torch.equal(attended.out, torch.cat([x.out for x in alone]))
    infos = [x.info() for x in alone]
    assert torch.equal(attended.info().levels, torch.cat([info.levels for info in infos]))
    assert attended.info().density.item() == pytest.approx(sum(info.density.item() for info in infos) / 2)
    (exact_heads,) = together._exact_heads.values()
    assert exact_heads.tolist() == [[1, 0]]


@needs_triton
@pytest.mark.usefixtures("int8_alone")
def test_heads_that_choose_anew_have_their_precision_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(order="Raster", estimator="mean", mix="level 1", density=0.8)
    zeros = torch.zeros(1, 2, device=DEVICE)
    choice = Choice((recipe,), zeros.long(), zeros, zeros.expand(2, 1, 2))
    monkeypatch.setattr(kept_choice, "choose_recipes", lambda trial: choice)
    kept, config = Kept(), CONFIG.replace(precision="auto", mask_mode="calibrated")
    kept.attend(*coarse_for_one_head(), config, Place(0, 0, GRID), "triton")
    (kept_for_layer,) = kept._choices.values()
    kept_for_layer.choice = None
    kept.attend(*random_qkv(Shape(1, 2, 160, 160), DTYPE), config, Place(1, 0, GRID), "triton")
    (exact_heads,) = kept._exact_heads.values()
    assert exact_heads.tolist() == [[0, 0]]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_plain_torch_stays_as_it_is(precision: str) -> None:
    q, k, v = random_qkv(Shape(1, 1, 160, 160), torch.float32)
    out, info = pyramid_sparse_attention(
        q, k, v, CONFIG.replace(precision=precision), grid=GRID, backend="torch", return_info=True
    )
    assert info.precision == "bf16"
    assert torch.equal(out, pyramid_sparse_attention(q, k, v, CONFIG, grid=GRID, backend="torch"))


@pytest.mark.parametrize(
    ("capability", "wanted", "runs"),
    [
        ((8, 0), "auto", "int8"),
        ((8, 6), "int8+fp8", "int8"),
        ((8, 9), "auto", "int8+fp8"),
        ((9, 0), "int8", "int8"),
        ((9, 0), "auto", "bf16"),
        ((10, 0), "auto", "bf16"),
        ((12, 0), "auto", "int8+fp8"),
        ((12, 0), "bf16", "bf16"),
    ],
)
def test_what_a_gpu_has(capability: tuple[int, int], wanted: str, runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from psa_core.ops import precision
    from psa_core.ops.refusals import device_refusal

    cuda = torch.device("cuda", 0)
    device_refusal.cache_clear()
    monkeypatch.setattr(precision, "triton_refusal", lambda *_: None)
    monkeypatch.setattr(precision, "_trial", lambda *_: None)
    monkeypatch.setattr(precision, "_has_own_kernel", lambda *_: capability == (9, 0))
    monkeypatch.setattr("psa_core.ops.refusals.triton_version", lambda: (3, 6))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    assert precision_that_runs(wanted, cuda, torch.bfloat16, 128) == runs
    device_refusal.cache_clear()


def test_sage_attention_is_its_other_name() -> None:
    assert PSAConfig(radial={"use_sage_attention": True}).precision == "auto"
    assert PSAConfig(radial={"use_sage_attention": True}, precision="int8").precision == "int8"
    assert PSAConfig(radial={}).precision == "bf16"


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_precision_that_is_asked_for_takes_the_place_of_sage_attention(precision: str) -> None:
    """As on the patch node and by ``psa generate --precision``."""
    config = PSAConfig(radial={"use_sage_attention": True})
    assert config.replace(map_steps=2).precision == "auto"
    asked = config.replace(precision=precision)
    assert asked.precision == asked.replace(map_steps=2).precision == precision
    assert config.replace(precision=precision, radial=RadialMask(use_sage_attention=True)).precision == precision
