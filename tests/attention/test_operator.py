"""The attention call under ``torch.compile``: whole, and equal to the same call without it."""

from __future__ import annotations

import dataclasses
import math
import shutil
from ast import literal_eval
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from psa_core import BackendError, ConfigError, PSAAttention, PSAConfig, RadialMask, Schedule, pyramid_sparse_attention
from psa_core.attention import operator, steps
from psa_core.attention.operator import attention_operator
from psa_core.ops.backends import triton_installed

from ..support.strategies import configs
from ..support.tensors import DEVICE, Shape, random_levels, random_qkv, softmax_attention

needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
COMPILER = shutil.which("c++") or shutil.which("cl")
COMPILE_BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.skipif(not COMPILER, reason="no C++"))]

RATIOS = {1: (0.0, 0.2), 2: (0.2, 0.3), 4: (0.3, 0.5), 8: (0.5, 0.8), 0: (0.8, 1.0)}
CONFIG = PSAConfig(block_m=64, block_n=32, mask_ratios=RATIOS, use_sim_mask=True)
RADIAL = RadialMask(decay_factor=0.2, block_size=8)
GRID, TEXT = (3, 6, 10), 21
TOKENS = 201
SHAPE = Shape(2, 2, TOKENS, TOKENS, 64, 64, 32)
# No setting has its default.
EVERY_SETTING = PSAConfig(
    type="dense", block_m=64, block_n=32, tile_n=64, mask_mode="calibrated", target_density=1 / 3, map_steps=4,
    early_density=4 / 3, candidate_orders=("Rows", "Gilbert"),
    precision="int8", dense_backend="cudnn", max_extra_memory=1 / 3,
    mask_ratios={1: (0, 0.1), 2: (0.1, 0.1), 32: (0.1, 0.7), 0: (0.7, 1)},
    min_full_ratio=0.123456789012345678, importance="mean", use_sim_mask=True,
    sim_thresholds={"x2": -0.1, "x4": 1 / 3, "x8": 1.0}, use_rearrange=False, rearrange_method="Tile",
    tile_size=(1, 2, 3), warmup_steps=4, min_tokens=5, text_length=6, attn_impl="old_mask_type", verbose=True,
    schedule=Schedule(
        warmup="12.5%", last_dense=2, dense_layers=(3, 1), curve="cosine", start={1: (0, 1)},
        end={1: (0, 1 / 3), 0: (1 / 3, 1)},
    ),
    radial=RadialMask(
        mode="coarsen", model_type="wan", decay_factor=1 / 3, block_size=7, sparsity_type="dense", dense_layers=1,
        dense_timesteps=2, last_dense_timesteps=3, scene_boundaries=(0, 3, 9),
        scene_adjacency=((True, False), (True, True)), frames_per_token=4,
    ),
    description='it\'s "quoted"\n\\ and é\u2028\0',
)  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def check_equal(compiled: Any, eager: Any) -> None:
    """Outputs and infos of two calls, bit for bit."""
    (out, info), (expected, expected_info) = compiled, eager
    assert torch.equal(out, expected)
    assert out.stride() == expected.stride()
    assert torch.equal(info.levels, expected_info.levels)
    assert torch.equal(info.density, expected_info.density)
    assert (info.backend, info.precision) == (expected_info.backend, expected_info.precision)
    assert type(info) is type(expected_info)


class TestCompiled:
    @pytest.mark.parametrize("compile_backend", COMPILE_BACKENDS)
    @pytest.mark.parametrize(
        ("config", "extra"),
        [
            (CONFIG, {}),
            (CONFIG, {"grid": GRID, "text_length": TEXT}),
            (CONFIG.replace(mask_mode="topk", use_sim_mask=False, importance="mean"), {"text_length": TEXT}),
            (CONFIG.replace(rearrange_method="Tile", tile_size=(1, 4, 4)), {"grid": list(GRID), "text_length": TEXT}),
            (CONFIG, {"static_levels": random_levels(SHAPE)}),
            (CONFIG, {"static_levels": random_levels(SHAPE)[:1, :1], "grid": GRID, "text_length": TEXT}),
            (
                CONFIG,
                {
                    "grid": GRID,
                    "sinks": [(0, TEXT - 9, False), (TEXT - 9 + math.prod(GRID), TEXT + math.prod(GRID), True)],
                },
            ),
            (CONFIG.replace(radial=RADIAL), {"grid": GRID, "text_length": TEXT}),
            (CONFIG.replace(radial=RADIAL.replace(mode="finer wins")), {"grid": GRID, "text_length": TEXT}),
            (None, {"backend": "torch"}),
        ],
        ids=[
            *("plain", "grid", "text", "tiles", "static levels", "broadcast static levels"),
            "sinks",
            *("radial mask", "radial mask and selection", "defaults"),
        ],
    )
    def test_equals_the_call(self, config: PSAConfig | None, extra: dict[str, Any], compile_backend: str) -> None:
        def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            out, info = pyramid_sparse_attention(2 * q, k, v, config, **extra, return_info=True)
            return out + 1, info

        qkv = random_qkv(SHAPE)
        check_equal(torch.compile(call, fullgraph=True, backend=compile_backend)(*qkv), call(*qkv))

    @needs_triton
    @pytest.mark.parametrize(
        ("precision", "extra"),
        [("int8", {}), ("bf16", {"grid": GRID, "text_length": TEXT, "static_levels": random_levels(SHAPE)})],
    )
    def test_equals_the_call_in_triton(self, precision: str, extra: dict[str, Any]) -> None:
        config = CONFIG.replace(precision=precision)

        def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            return pyramid_sparse_attention(q, k, v, config, **extra, backend="triton", return_info=True)

        qkv = random_qkv(SHAPE, torch.float16)
        check_equal(torch.compile(call, fullgraph=True, backend="aot_eager")(*qkv), call(*qkv))

    @pytest.mark.parametrize(
        "shape", [Shape(1, 1, 1, 1), Shape(1, 1, 130, 40), Shape(2, 1, 1, 300), Shape(1, 3, 70, 70)]
    )
    def test_odd_shapes(self, shape: Shape) -> None:
        qkv = random_qkv(shape)
        compiled = torch.compile(pyramid_sparse_attention, fullgraph=True, backend="aot_eager")
        out, info = compiled(*qkv, CONFIG, return_info=True)
        expected, expected_info = pyramid_sparse_attention(*qkv, CONFIG, return_info=True)
        assert torch.equal(out, expected)
        assert torch.equal(info.levels, expected_info.levels)

    @pytest.mark.parametrize(
        "view",
        [lambda x: x.transpose(1, 2).contiguous().transpose(1, 2), lambda x: x.mT.contiguous().mT],
        ids=["heads after tokens", "tokens innermost"],
    )
    @pytest.mark.parametrize("compile_backend", COMPILE_BACKENDS)
    def test_any_strides(self, view: Callable[[torch.Tensor], torch.Tensor], compile_backend: str) -> None:
        qkv = [view(x) for x in random_qkv(SHAPE)]
        compiled = torch.compile(pyramid_sparse_attention, fullgraph=True, backend=compile_backend)
        extra = {"grid": GRID, "text_length": TEXT, "return_info": True}
        check_equal(compiled(*qkv, CONFIG, **extra), pyramid_sparse_attention(*qkv, CONFIG, **extra))

    @pytest.mark.parametrize("compile_backend", COMPILE_BACKENDS)
    @pytest.mark.parametrize("kind", ["psa", "dense"])
    def test_module(self, kind: str, compile_backend: str) -> None:
        module = PSAAttention(CONFIG.replace(text_length=TEXT, type=kind))
        qkv = random_qkv(SHAPE)
        compiled = torch.compile(module, fullgraph=True, backend=compile_backend)
        assert torch.equal(compiled(*qkv, grid=GRID), module(*qkv, grid=GRID))
        assert torch.equal(compiled(*qkv, text_length=3), module(*qkv, text_length=3))

    def test_in_inference_mode(self) -> None:
        qkv = random_qkv(SHAPE)
        compiled = torch.compile(pyramid_sparse_attention, fullgraph=True, backend="aot_eager")
        with torch.inference_mode():
            out = compiled(*qkv, CONFIG, grid=GRID, text_length=TEXT)
        assert torch.equal(out, pyramid_sparse_attention(*qkv, CONFIG, grid=GRID, text_length=TEXT))

    @pytest.mark.parametrize("compile_backend", COMPILE_BACKENDS)
    def test_one_graph_for_marked_lengths(self, compile_backend: str) -> None:
        def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            return pyramid_sparse_attention(q, k, v, CONFIG, return_info=True)

        counter = CompileCounterWithBackend(compile_backend)
        compiled = torch.compile(call, fullgraph=True, backend=counter)
        for tokens in (201, 333, 130):
            qkv = random_qkv(SHAPE._replace(q_tokens=tokens, k_tokens=tokens))
            for x in qkv:
                torch._dynamo.mark_dynamic(x, 2)
            check_equal(compiled(*qkv), call(*qkv))
        assert counter.frame_count == 1

    @pytest.mark.parametrize("compile_backend", COMPILE_BACKENDS)
    def test_lengths_that_change_open_the_graph(self, compile_backend: str) -> None:
        def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            grid = (q.shape[2] // 60, 6, 10)
            return pyramid_sparse_attention(q, k, v, CONFIG, grid=grid, text_length=q.shape[2] % 60, return_info=True)

        counter = CompileCounterWithBackend(compile_backend)
        compiled = torch.compile(call, fullgraph=True, backend=counter)
        for tokens in (201, 335, 257):
            qkv = random_qkv(SHAPE._replace(q_tokens=tokens, k_tokens=tokens))
            check_equal(compiled(*qkv), call(*qkv))
        assert counter.frame_count == 2

    def test_everything_may_be_open(self) -> None:
        def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            return pyramid_sparse_attention(q, k, v, CONFIG, return_info=True)

        compiled = torch.compile(call, fullgraph=True, backend="aot_eager", dynamic=True)
        for shape in (SHAPE, Shape(3, 4, 100, 150, 64), Shape(3, 4, 100, 150, 32)):
            qkv = random_qkv(shape)
            check_equal(compiled(*qkv), call(*qkv))

    def test_gradients_are_those_of_the_call(self) -> None:
        qkv = [x.requires_grad_() for x in random_qkv(SHAPE, device=torch.device("cpu"))]
        compiled = torch.compile(pyramid_sparse_attention, backend="aot_eager")
        gradients = [
            torch.autograd.grad(call(*qkv, CONFIG, grid=GRID, text_length=TEXT).square().sum(), qkv)
            for call in (pyramid_sparse_attention, compiled)
        ]
        assert all(torch.equal(x, y) for x, y in zip(*gradients, strict=True))

    @pytest.mark.parametrize("wanted", [0, 1, 2])
    def test_kernels_have_no_gradients(self, wanted: int) -> None:
        qkv = random_qkv(SHAPE, torch.float16)
        qkv[wanted].requires_grad_()
        compiled = torch.compile(pyramid_sparse_attention, backend="aot_eager")
        for call in (pyramid_sparse_attention, compiled):
            with pytest.raises(BackendError, match="the kernels have no gradients"):
                call(*qkv, CONFIG, backend="triton")
            out, info = call(*qkv, CONFIG, return_info=True)
            assert out.requires_grad
            assert info.backend == "torch"

    @needs_triton
    def test_kernels_run_where_gradients_are_off(self) -> None:
        qkv = [x.requires_grad_() for x in random_qkv(SHAPE, torch.float16)]
        compiled = torch.compile(pyramid_sparse_attention, backend="aot_eager")
        # The graph of the first call is not that of the others.
        assert compiled(*qkv, CONFIG).requires_grad
        with torch.no_grad():
            for call in (pyramid_sparse_attention, compiled):
                out, info = call(*qkv, CONFIG, backend="triton", return_info=True)
                assert not out.requires_grad
                assert info.backend == "triton"

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"text_length": 500}, "text_length = 500: must be a whole number between 0 and 201"),
            ({"grid": (2, 2, 2)}, "must make 201 tokens"),
            (
                {"static_levels": torch.ones(1, 1, 2, 1, dtype=torch.uint8, device=DEVICE)},
                r"must be uint8 \[2, 2, 4, 7\]",
            ),
            ({"backend": "sdpa"}, "backend = 'sdpa': must be one of auto, triton, torch"),
        ],
    )
    def test_refusals_say_the_same(self, changes: dict[str, Any], said: str) -> None:
        compiled = torch.compile(pyramid_sparse_attention, backend="aot_eager")
        for call in (pyramid_sparse_attention, compiled):
            with pytest.raises(ConfigError, match=said):
                call(*random_qkv(SHAPE), CONFIG, **changes)

    def test_a_backend_that_cannot_says_the_same(self) -> None:
        qkv = random_qkv(SHAPE._replace(d=80))
        compiled = torch.compile(pyramid_sparse_attention, backend="aot_eager")
        for call in (pyramid_sparse_attention, compiled):
            with pytest.raises(BackendError, match="backend = 'triton'"):
                call(*qkv, CONFIG, backend="triton")


@pytest.mark.parametrize(
    ("shape", "grid", "sinks", "static", "backend"),
    [
        (SHAPE, None, [], False, "auto"),
        (SHAPE, GRID, [0, TEXT, 1], True, "torch"),
        (Shape(1, 1, 1, 1), None, [0, 1, 1], False, "torch"),
        (Shape(1, 3, 60, 200), None, [0, 9, 0, 20, 30, 1], False, "torch"),
        pytest.param(Shape(1, 1, 70, 70), (1, 7, 8), [0, 14, 0], True, "triton", marks=needs_triton),
    ],
)
def test_is_an_operator_as_torch_wants_them(
    shape: Shape, grid: tuple[int, int, int] | None, sinks: list[int], static: bool, backend: str
) -> None:
    levels = random_levels(shape._replace(block_m=64, block_n=32)) if static else None
    qkv = random_qkv(shape, torch.float16 if backend == "triton" else torch.float32)
    torch.library.opcheck(attention_operator, (*qkv, CONFIG.as_text, grid, sinks, levels, backend))


class TestSettings:
    @hypothesis.given(configs())
    def test_survive_as_text(self, config: PSAConfig) -> None:
        again = operator._config(config.as_text)
        assert again == config
        assert again.as_text == config.as_text
        assert literal_eval(config.as_text).keys() == {field.name for field in dataclasses.fields(PSAConfig)}

    @hypothesis.given(configs(), configs())
    def test_text_tells_settings_apart(self, one: PSAConfig, other: PSAConfig) -> None:
        assert (one.as_text == other.as_text) <= (one == other)
        assert one.replace(description="x" + one.description).as_text != one.as_text

    def test_all_reach_the_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        defaults = PSAConfig()
        for field in dataclasses.fields(PSAConfig):
            # It takes the place of a density.
            if field.name != "target_error":
                assert getattr(EVERY_SETTING, field.name) != getattr(defaults, field.name)
        met = []
        run = steps.sparse_attention

        def noted(
            q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig, *others: Any, **last: Any
        ) -> Any:
            met.append(config)
            return run(q, k, v, config, *others, **last)

        monkeypatch.setattr(steps, "sparse_attention", noted)
        compiled = torch.compile(pyramid_sparse_attention, fullgraph=True, backend="aot_eager")
        # A dense call has no use for the others.
        settings = EVERY_SETTING.replace(type="psa")
        other = EVERY_SETTING.replace(type="psa", schedule=None, target_density=None, target_error=1 / 7)
        for each in (settings, other):
            compiled(*random_qkv(SHAPE), each, grid=GRID, text_length=TEXT)
        assert met == [settings, other]

    @pytest.mark.parametrize("compile_backend", COMPILE_BACKENDS)
    def test_dense_type(self, compile_backend: str) -> None:
        def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
            return pyramid_sparse_attention(q, k, v, EVERY_SETTING, return_info=True)

        qkv = random_qkv(SHAPE)
        out, info = torch.compile(call, fullgraph=True, backend=compile_backend)(*qkv)
        assert torch.allclose(out, softmax_attention(*qkv).float(), atol=1e-5)
        assert info.density.item() == 1
