"""Calibrated attention: what heads choose, and that each then runs as it would alone with the recipe it has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from psa_core import BackendError, PSAConfig, Recipe, calibrate, pyramid_sparse_attention
from psa_core.attention.choose import LADDER, candidates
from psa_core.attention.recipes import Choice
from psa_core.attention.steps import AttentionInfo, sparse_attention
from psa_core.ops.reorder import METHODS
from psa_core.settings.config import IMPORTANCE_ESTIMATORS
from psa_core.settings.orders import DEFAULT_CANDIDATE_ORDERS
from psa_core.settings.recipe import MIXES
from psa_core.settings.sinks import text_in_front

from ..support.tensors import DEVICE, Shape, random_levels, random_qkv, relative_error
from .test_trial import CASES, GRID, RADIAL, TEXT, TOKENS, Case, call, errors_of_call, needs_triton, tensors

BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]
SMALL = Shape(2, 2, TOKENS, TOKENS, 64, 64, 32)
CONFIG = Case(SMALL).config
VIDEO = {"grid": GRID, "text_length": TEXT}
# What the interpreter runs in a second or two.
TINY, TINY_VIDEO = Shape(2, 2, 131, 131, 64, 64, 32), {"grid": (2, 8, 8), "text_length": 3}
EVERY_RECIPE = tuple(
    Recipe(order=order, estimator=estimator, mix=mix, density=density)
    for order, estimator, mix, density in itertools.product(METHODS, IMPORTANCE_ESTIMATORS, MIXES, (0.1, 0.4))
)


def calibrated(qkv: tuple[torch.Tensor, ...], config: PSAConfig, **extra: Any) -> tuple[torch.Tensor, AttentionInfo]:
    return pyramid_sparse_attention(*qkv, config, **extra, return_info=True)


def chosen(info: AttentionInfo) -> Choice:
    assert info.choice is not None
    return info.choice


def relative(case: Case, qkv: tuple[torch.Tensor, ...], recipes: tuple[Recipe, ...]) -> torch.Tensor:
    """The error that a call has with each recipe, in the query blocks of a trial: float64 ``[R, B, H]``."""
    squares = [errors_of_call(case, qkv, recipe, call(case, qkv, recipe, "torch")).sum(-1) for recipe in recipes]
    return torch.stack([(wrong / right).sqrt() for wrong, right in squares])


def of_heads(x: torch.Tensor, of_head: torch.Tensor) -> torch.Tensor:
    """Of ``[N, B, H]`` the entry of each head's number."""
    return x.gather(0, of_head[None])[0]


def each_head(shape: Shape) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
    for b, h in itertools.product(range(shape.batch), range(shape.heads)):
        yield b, h, (slice(b, b + 1), slice(h, h + 1))


def check_heads_alone(
    qkv: tuple[torch.Tensor, ...], shape: Shape, out: torch.Tensor, levels: torch.Tensor, choice: Choice,
    config: PSAConfig, **extra: Any,
) -> None:  # fmt: skip
    """Output and level map of each head, bit for bit those of the call with its recipe and none but it."""
    static = extra.pop("static_levels", None)
    for b, h, head in each_head(shape):
        recipe = choice.recipes[choice.of_head[b, h]]
        its_static = None if static is None else static.expand(shape.batch, shape.heads, -1, -1)[head]
        alone, info = pyramid_sparse_attention(
            *(x[head] for x in qkv), recipe.config(config), **extra, static_levels=its_static, return_info=True
        )
        assert torch.equal(levels[head], info.levels), recipe.name
        assert torch.equal(out[head], alone), recipe.name


class TestChoice:
    @pytest.mark.parametrize("name", ["text and grid", "blocks of 128", "capped", "cut by a mask", "other keys"])
    def test_at_a_density_is_the_least_error_of_calls(self, name: str) -> None:
        case = CASES[name]
        qkv = tensors(case.shape)
        config = case.config.replace(target_density=0.3)
        choice = chosen(calibrated(qkv, config, grid=case.grid, text_length=case.text, static_levels=case.static)[1])
        errors = relative(case, qkv, choice.recipes)
        orders = DEFAULT_CANDIDATE_ORDERS if name in ("text and grid", "blocks of 128", "capped") else ("Raster",)
        assert choice.recipes == candidates(0.3, orders)
        torch.testing.assert_close(choice.errors.double(), of_heads(errors, choice.of_head), rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(choice.errors.double(), errors.amin(0), rtol=1e-4, atol=2e-6)

    @pytest.mark.parametrize(
        ("name", "target"), [("text and grid", 0.4), ("text and grid", 1e-9), ("static levels", 0.05)]
    )
    def test_at_an_error_is_the_cheapest_of_the_ladder_that_keeps_to_it(self, name: str, target: float) -> None:
        case = CASES[name]
        q, k, v = tensors(case.shape)
        # Heads of which more and more is the same at all tokens need less and less.
        v = v + torch.tensor([[0.0, 1.0], [3.0, 9.0]])[..., None, None]
        case = case._replace(changes={"target_error": target})
        extra = {"grid": case.grid, "text_length": case.text, "static_levels": case.static}
        choice = chosen(calibrated((q, k, v), case.config, **extra)[1])

        orders = ("Raster", "Gilbert") if case.static is None else ("Raster",)
        ladder, densities = [], []
        for anchor, rungs in LADDER.items():
            best = relative(case, (q, k, v), candidates(anchor, orders)).argmin(0)
            some, of_head = best.unique(return_inverse=True)
            for density in rungs:
                recipes = tuple(candidates(density, orders)[number] for number in some)
                ladder.append(of_heads(relative(case, (q, k, v), recipes), of_head))
                densities.append(density)
        errors = torch.stack(ladder)
        assert densities == sorted(densities)
        for b, h, _ in each_head(case.shape):
            keeps = [i for i in range(len(errors)) if errors[i, b, h] <= target]
            expected = keeps[0] if keeps else int(errors[:, b, h].argmin())
            torch.testing.assert_close(choice.errors[b, h].double(), errors[expected, b, h], rtol=1e-4, atol=2e-6)
            if keeps or case.static is not None:
                assert choice.recipes[choice.of_head[b, h]].density == densities[expected]

    def test_is_the_same_beside_other_heads(self) -> None:
        qkv = tensors(SMALL)
        choice = chosen(calibrated(qkv, CONFIG, **VIDEO)[1])
        for _, _, head in each_head(SMALL):
            alone = chosen(calibrated(tuple(x[head] for x in qkv), CONFIG, **VIDEO)[1])
            assert torch.equal(choice.of_head[head], alone.of_head)
            torch.testing.assert_close(choice.errors[head], alone.errors, rtol=1e-5, atol=0)


class TestHeads:
    @pytest.mark.parametrize(
        ("changes", "extra"),
        [
            ({}, VIDEO),
            ({"tile_size": (2, 3, 4), "use_sim_mask": True}, VIDEO),
            ({}, {}),
            ({"radial": RADIAL.replace(mode="intersect")}, VIDEO),
            ({"radial": RADIAL.replace(mode="finer wins")}, VIDEO),
            ({}, {"static_levels": random_levels(SMALL)[:, :1]}),
        ],
        ids=["video", "tiles and cap", "no grid", "cut by a mask", "finer by a mask", "static levels"],
    )
    @pytest.mark.usefixtures("poisoned_memory")
    def test_each_runs_as_alone_with_its_recipe(self, changes: dict[str, Any], extra: dict[str, Any]) -> None:
        qkv, config = tensors(SMALL), CONFIG.replace(target_error=0.5, **changes)
        choice = _random_choice(SMALL)
        arguments = extra.get("grid"), text_in_front(extra.get("text_length", 0)), extra.get("static_levels"), "torch"
        out, info, *_ = sparse_attention(*qkv, config, *arguments, choice)
        check_heads_alone(qkv, SMALL, out, info().levels, choice, config, **extra)

    @needs_triton
    @pytest.mark.usefixtures("poisoned_memory")
    def test_each_runs_in_triton_as_alone_with_its_recipe(self) -> None:
        qkv, config = tensors(TINY, torch.float16), CONFIG.replace(target_error=0.5, use_sim_mask=True)
        choice = _random_choice(TINY)
        out, info, *_ = sparse_attention(
            *qkv, config, TINY_VIDEO["grid"], text_in_front(TINY_VIDEO["text_length"]), None, "triton", choice
        )
        check_heads_alone(qkv, TINY, out, info().levels, choice, config, **TINY_VIDEO, backend="triton")

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("target", ["target_density", "target_error"])
    def test_each_runs_as_alone_with_the_recipe_it_chose(self, target: str, backend: str) -> None:
        shape, extra = SMALL, VIDEO
        if backend == "triton":
            shape, extra = TINY._replace(batch=1, heads=1 + (target == "target_density"), block_n=64), TINY_VIDEO
        qkv = tensors(shape, torch.float64 if backend == "torch" else torch.float16)
        config = CONFIG.replace(**{target: 0.3}, block_n=shape.block_n)
        out, info = calibrated(qkv, config, **extra, backend=backend)
        assert info.backend == backend
        check_heads_alone(qkv, shape, out, info.levels, chosen(info), config, **extra, backend=backend)

    def test_density_of_the_call_is_the_target(self) -> None:
        shape = Shape(1, 2, 64 * 40, 64 * 40, 16, 64, 32)
        _, info = calibrated(random_qkv(shape), CONFIG, grid=(4, 20, 32))
        assert info.density.item() == pytest.approx(0.15, abs=0.02)


class TestCall:
    def test_repeats_bit_for_bit_and_leaves_random_states_alone(self) -> None:
        qkv, state = tensors(SMALL), torch.get_rng_state()
        (out, info), (again, info_again) = (calibrated(qkv, CONFIG, **VIDEO) for _ in range(2))
        assert torch.equal(out, again)
        assert all(torch.equal(x, y) for x, y in zip(chosen(info)[1:], chosen(info_again)[1:], strict=True))
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("target", ["target_density", "target_error"])
    def test_gradients_are_those_of_the_recipes(self, target: str) -> None:
        qkv, config = [x.requires_grad_() for x in tensors(SMALL, torch.float64)], CONFIG.replace(**{target: 0.4})
        weight = torch.randn(qkv[0].shape, dtype=torch.float64, device=DEVICE)
        out, info = calibrated(tuple(qkv), config, **VIDEO)
        gradients = torch.autograd.grad((out * weight).sum(), qkv)
        choice = chosen(info)
        assert not any(x.requires_grad for x in choice[1:])
        for b, h, head in each_head(SMALL):
            recipe = choice.recipes[choice.of_head[b, h]]
            alone = pyramid_sparse_attention(*(x[head] for x in qkv), recipe.config(config), **VIDEO)
            expected = torch.autograd.grad((alone * weight[head]).sum(), qkv)
            assert all(relative_error(x[head], y[head]) < 1e-10 for x, y in zip(gradients, expected, strict=True))

    def test_kernels_say_that_they_have_no_gradients(self) -> None:
        qkv = [x.requires_grad_() for x in tensors(TINY, torch.float16)]
        for attempt in (pyramid_sparse_attention, calibrate):
            with pytest.raises(BackendError, match="no gradients"):
                attempt(*qkv, CONFIG, backend="triton")

    @pytest.mark.parametrize(
        ("backend", "shape", "extra"),
        [
            ("torch", Shape(1, 1, 1, 1), {"grid": (1, 1, 1)}),
            ("torch", Shape(1, 1, 1, 1), {"text_length": 1}),
            ("torch", Shape(1, 2, 30, 30), {"grid": (1, 5, 6)}),
            ("torch", Shape(2, 1, 40, 40), {"grid": (1, 5, 6), "text_length": 10}),
            ("torch", Shape(1, 1, 128, 128), {}),
            ("torch", Shape(1, 2, 140, 140), {"text_length": 140}),
            ("torch", Shape(1, 1, 200, 200), {"grid": (1, 10, 13), "text_length": 70}),
            ("torch", Shape(1, 1, 3, 150), {}),
            ("torch", Shape(1, 1, 150, 3), {}),
            pytest.param("triton", Shape(1, 1, 1, 1), {"grid": (1, 1, 1)}, marks=needs_triton),
            pytest.param("triton", Shape(1, 1, 40, 40), {"text_length": 10}, marks=needs_triton),
            pytest.param("triton", Shape(1, 1, 3, 150), {}, marks=needs_triton),
        ],
    )
    @pytest.mark.usefixtures("poisoned_memory")
    def test_short_sequences(self, backend: str, shape: Shape, extra: dict[str, Any]) -> None:
        qkv, config = random_qkv(shape, torch.float16), PSAConfig(mask_mode="calibrated")
        out, info = calibrated(qkv, config, **extra, backend=backend)
        assert out.isfinite().all()
        assert chosen(info).errors.isfinite().all()
        check_heads_alone(qkv, shape, out, info.levels, chosen(info), config, **extra, backend=backend)

    @pytest.mark.parametrize("target", [0.2, 1e-9])
    def test_short_sequences_to_an_error(self, target: float) -> None:
        config = PSAConfig(mask_mode="calibrated", target_error=target)
        for tokens in (1, 63, 130, 300):
            shape = Shape(1, 2, tokens, tokens)
            qkv = random_qkv(shape)
            out, info = calibrated(qkv, config)
            check_heads_alone(qkv, shape, out, info.levels, chosen(info), config)


def _random_choice(shape: Shape) -> Choice:
    """Any recipes, of which no two heads have the same."""
    heads = shape.batch, shape.heads
    of_head = torch.randperm(len(EVERY_RECIPE))[: shape.batch * shape.heads].view(heads).to(DEVICE)
    return Choice(EVERY_RECIPE, of_head, torch.zeros(heads, device=DEVICE), torch.zeros(2, *heads, device=DEVICE))
