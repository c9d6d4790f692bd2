"""Orders by content: queries and keys in clusters of their own, in whole calls and in the choice of recipes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from psa_core import Calibration, PSAConfig, RadialMask, Recipe, pyramid_sparse_attention
from psa_core.attention.calibrate import calibrate
from psa_core.attention.choose import candidates, choose_recipes
from psa_core.attention.recipes import Choice
from psa_core.attention.steps import sparse_attention, trial_of
from psa_core.attention.trial import measure_again
from psa_core.ops.backends import triton_installed
from psa_core.ops.reorder.by_content import cluster_content, content_index
from psa_core.ops.reorder.orders import Orders, inverse
from psa_core.settings.errors import ConfigError
from psa_core.settings.sinks import read_sinks, text_in_front

from ..support.tensors import DEVICE, Shape, random_levels, random_qkv, relative_error, softmax_attention

GRID, TEXT = (3, 8, 11), 9
SINKS = text_in_front(TEXT)
SQUARE = Shape(2, 2, 273, 273, 64, 64, 32)
OBLONG = Shape(1, 2, 201, 333, 128, 64, 32)
SMALL = Shape(1, 2, 90, 130, 64, 64, 32)
RATIOS = {1: (0.0, 0.2), 2: (0.2, 0.4), 8: (0.4, 0.8), 0: (0.8, 1.0)}
CONFIG = PSAConfig(block_m=64, block_n=32, mask_mode="topk", mask_ratios=RATIOS, tile_size=(2, 4, 6))
needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")


def own_orders(q: torch.Tensor, k: torch.Tensor, method: str, grid: Any, text: int) -> list[torch.Tensor]:
    """Of queries and of keys, int64 ``[B, H, L]``."""
    content = cluster_content(q[:, :, text:], k[:, :, text:])
    indices = [content_index(method, each.nearest, grid, CONFIG.tile_size, text) for each in content]
    return [index.long().view(*q.shape[:2], -1) for index in indices]


def by_hand(qkv: tuple[torch.Tensor, ...], config: PSAConfig, grid: Any, text: int, backend: str) -> torch.Tensor:
    """The call on tokens that were put in order before it, and back after it."""
    q_index, k_index = own_orders(*qkv[:2], config.rearrange_method, grid, text)
    taken = [
        x.gather(2, index[..., None].expand_as(x)) for x, index in zip(qkv, (q_index, k_index, k_index), strict=True)
    ]
    out = pyramid_sparse_attention(*taken, config.replace(use_rearrange=False), text_length=text, backend=backend)
    return out.gather(2, inverse(q_index.flatten(0, 1)).view_as(q_index)[..., None].expand_as(out))


@pytest.mark.parametrize(
    ("shape", "method", "grid", "changes", "backend"),
    [
        (SQUARE, "Semantic", GRID, {"use_sim_mask": True}, "torch"),
        (SQUARE, "Hybrid", GRID, {"importance": "sub_block_mass"}, "torch"),
        (OBLONG, "Semantic", None, {"importance": "mean", "block_n": 64}, "torch"),
        pytest.param(SMALL, "Semantic", None, {"use_sim_mask": True}, "triton", marks=needs_triton),
    ],
)
@pytest.mark.usefixtures("poisoned_memory")
def test_a_call_is_one_on_tokens_in_order(
    shape: Shape, method: str, grid: Any, changes: dict[str, Any], backend: str
) -> None:
    config = CONFIG.replace(rearrange_method=method, **changes)
    qkv = random_qkv(shape, torch.float16)
    out = pyramid_sparse_attention(*qkv, config, grid=grid, text_length=TEXT, backend=backend)
    assert relative_error(out, by_hand(qkv, config, grid, TEXT, backend)) < 1e-3


@needs_triton
@pytest.mark.usefixtures("poisoned_memory")
def test_quantised_it_is_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # On Hopper, too.
    monkeypatch.setenv("PSA_BACKEND", "portable")
    q, k, v = random_qkv(SMALL, torch.float16)
    # Values have much in common, so that what FP8 adds evens out.
    qkv, config = (q, k, v + 2), CONFIG.replace(rearrange_method="Semantic")
    expected = pyramid_sparse_attention(*qkv, config, text_length=TEXT, backend="torch")
    quantised = sparse_attention(*qkv, config.replace(precision="auto"), None, SINKS, None, "triton")
    # None of the heads was found too coarse, as those are that are measured in another order than theirs.
    assert quantised.exact_heads is not None
    assert not quantised.exact_heads.any()
    assert 0 < relative_error(quantised.out, expected) < 0.02


@pytest.mark.parametrize("grid", [(3, 8, 10), None])
def test_sinks_stay_where_they_are(grid: Any) -> None:
    qkv, sinks = random_qkv(SQUARE), ((249, 260, True), (260, 273, False))
    config = CONFIG.replace(rearrange_method="Semantic")
    out, info = pyramid_sparse_attention(
        *qkv, config, grid=grid, text_length=TEXT, sinks=sinks, backend="torch", return_info=True
    )
    trial = trial_of(*qkv, config, grid, read_sinks(sinks, TEXT), None, "torch")
    orders = trial.fixed_order
    assert orders is not None
    assert orders.of_queries is not None
    for index in (orders.index, orders.of_queries.index):
        assert [row[:9] + row[249:] for row in index.tolist()] == [[*range(9), *range(249, 273)]] * 4
        assert index.sort().values.tolist() == [list(range(273))] * 4
    assert (info.levels[..., 7:] == 1).all()
    expected = softmax_attention(*qkv)
    assert relative_error(out[:, :, 256:260], expected[:, :, 256:260]) < 1e-5


def test_gradients_are_those_of_the_call_in_order() -> None:
    config = CONFIG.replace(rearrange_method="Semantic")
    qkv = [x.requires_grad_() for x in random_qkv(OBLONG, torch.float64)]
    weight = torch.randn_like(qkv[0])
    found, expected = (
        torch.autograd.grad((out * weight).sum(), qkv)
        for out in (
            pyramid_sparse_attention(*qkv, config, text_length=TEXT),
            by_hand(tuple(qkv), config, None, TEXT, "torch"),
        )
    )
    assert all(relative_error(x, y) < 1e-10 for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize(("tokens", "text", "grid"), [(5, 0, (1, 1, 5)), (70, 70, None), (70, 66, (1, 2, 2))])
def test_a_call_with_little_to_cluster(tokens: int, text: int, grid: Any) -> None:
    qkv = random_qkv(Shape(1, 2, tokens, tokens, 64, 64, 32))
    config = CONFIG.replace(rearrange_method="Semantic", mask_ratios={1: (0.0, 1.0)})
    out = pyramid_sparse_attention(*qkv, config, grid=grid, text_length=text)
    assert relative_error(out, softmax_attention(*qkv)) < 1e-5


def test_hybrid_without_a_grid_and_both_under_a_mask_leave_tokens_as_they_lie() -> None:
    qkv = random_qkv(SQUARE)
    raster = CONFIG.replace(use_rearrange=False)
    hybrid = CONFIG.replace(rearrange_method="Hybrid")
    out = pyramid_sparse_attention(*qkv, hybrid, text_length=TEXT)
    assert torch.equal(out, pyramid_sparse_attention(*qkv, raster, text_length=TEXT))
    radial = RadialMask(decay_factor=0.5, block_size=32, mode="intersect")
    for config in (hybrid, hybrid.replace(rearrange_method="Semantic")):
        masked, expected = (
            pyramid_sparse_attention(*qkv, each.replace(radial=radial), grid=GRID, text_length=TEXT)
            for each in (config, raster)
        )
        assert torch.equal(masked, expected)


def test_a_map_of_blocks_that_are_other_in_each_head_is_refused() -> None:
    config, levels = CONFIG.replace(rearrange_method="Semantic"), random_levels(SQUARE)[:, :1]
    with pytest.raises(ConfigError, match="static_levels") as raised:
        pyramid_sparse_attention(*random_qkv(SQUARE), config, grid=GRID, text_length=TEXT, static_levels=levels)
    assert (raised.value.key, raised.value.value) == ("rearrange_method", "Semantic")


class TestCalibrated:
    CONFIG = PSAConfig(
        mask_mode="calibrated", target_density=0.3, block_m=64, block_n=32, tile_size=(2, 4, 6),
        candidate_orders=("Semantic", "Raster", "Hybrid"),
    )  # fmt: skip

    def test_each_head_as_in_the_call_with_its_recipe(self) -> None:
        qkv = random_qkv(SQUARE, torch.float64)
        call = *qkv, self.CONFIG, GRID, SINKS, None, "torch"
        choice = choose_recipes(trial_of(*call))
        assert {recipe.order for recipe in choice.recipes} == {"Semantic", "Raster", "Hybrid"}
        # Whichever were chosen, all of them stand side by side.
        numbers = torch.randperm(len(choice.recipes))[:4].view(2, 2).to(DEVICE)
        out = sparse_attention(*call, choice._replace(of_head=numbers)).out
        for b, h in itertools.product(range(2), range(2)):
            alone = choice.recipes[numbers[b, h]].config(self.CONFIG)
            expected = pyramid_sparse_attention(*qkv, alone, grid=GRID, text_length=TEXT, backend="torch")
            assert relative_error(out[b, h], expected[b, h]) < 1e-5

    @needs_triton
    @pytest.mark.usefixtures("poisoned_memory")
    def test_kernels_read_the_same_map_in_the_same_orders(self) -> None:
        qkv, grid = random_qkv(Shape(1, 2, 129, 129, 64, 64, 32), torch.float16), (2, 6, 10)
        recipes = candidates(0.4, ("Hybrid", "Raster", "Semantic"))
        of_head = torch.tensor([[1, 7]], device=DEVICE)
        choice = Choice(recipes, of_head, torch.zeros(1, 2), torch.zeros(2, 1, 2))
        expected = sparse_attention(*qkv, self.CONFIG, grid, SINKS, None, "torch", choice)
        found = sparse_attention(*qkv, self.CONFIG, grid, SINKS, None, "triton", level_map=expected.level_map)
        assert relative_error(found.out, expected.out) < 2e-3

    def test_errors_are_those_of_the_call(self) -> None:
        qkv = random_qkv(SQUARE, torch.float64)
        recipe = Recipe(order="Semantic", estimator="sampled_max", mix="pyramid", density=0.3)
        trial = trial_of(*qkv, self.CONFIG, GRID, SINKS, None, "torch")
        orders = trial.one_order(recipe.order)
        (here,) = trial.in_orders([orders])
        errors = here.errors([here.levels(here.importance(recipe.estimator), recipe.config(self.CONFIG))])
        out = pyramid_sparse_attention(*qkv, recipe.config(self.CONFIG), grid=GRID, text_length=TEXT)
        again = measure_again(trial, orders, out)
        first_map = torch.zeros(again.shape[1:], dtype=torch.int64, device=DEVICE)
        torch.testing.assert_close(errors.spot(first_map), again, rtol=1e-4, atol=0)
        # Of queries in the order of queries.
        assert orders is not None
        assert orders.of_queries is not None
        rows = trial.positions(trial.blocks)
        taken = Orders(orders.of_queries.index[:, rows], orders.of_queries.of_head).take(softmax_attention(*qkv))
        assert relative_error(here.exact, taken) < 1e-5

    def test_a_calibration_is_kept_and_followed(self, tmp_path: Any) -> None:
        qkv = random_qkv(SQUARE, torch.float64)
        config = self.CONFIG.replace(candidate_orders=("Semantic",))
        made = calibrate(*qkv, config, grid=GRID, text_length=TEXT)
        assert {recipe.order for recipe in made.recipes[0]} == {"Semantic"}
        given = Calibration.load(made.save(tmp_path / "made.yaml"))
        # What heads have is in the calibration; which orders others might choose from is nothing to it.
        out = pyramid_sparse_attention(
            *qkv, config.replace(candidate_orders=("Raster",)), grid=GRID, text_length=TEXT, calibration=given
        )
        for h, recipe in enumerate(given.recipes[0]):
            alone = pyramid_sparse_attention(*qkv, recipe.config(config), grid=GRID, text_length=TEXT)
            assert relative_error(out[:, h], alone[:, h]) < 1e-5

    def test_without_a_grid_there_is_semantic_beside_raster(self) -> None:
        q, k, v = random_qkv(OBLONG, torch.float64)
        trial = trial_of(q, k, v, self.CONFIG, None, SINKS, None, "torch")
        assert trial.orders == ("Semantic", "Raster")
        recipes = candidates(0.3, trial.orders)
        assert choose_recipes(trial).recipes == recipes
        choice = Choice(
            recipes,
            torch.tensor([[0, 4]], device=DEVICE),
            *(torch.zeros(size, device=DEVICE) for size in ((1, 2), (2, 1, 2))),
        )
        out = sparse_attention(q, k, v, self.CONFIG, None, SINKS, None, "torch", choice).out
        for h, number in enumerate((0, 4)):
            alone = pyramid_sparse_attention(q, k, v, recipes[number].config(self.CONFIG), text_length=TEXT)
            assert relative_error(out[:, h], alone[:, h]) < 1e-5

    def test_at_an_error(self) -> None:
        qkv = random_qkv(SQUARE, torch.float64)
        config = self.CONFIG.replace(target_error=0.5)
        choice = choose_recipes(trial_of(*qkv, config, GRID, SINKS, None, "torch"))
        assert (choice.errors <= 0.5).all()
