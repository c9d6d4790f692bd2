"""The diffusers host, on tiny random transformers: what runs sparse, what stays dense, what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from psa_core import ConfigError, PSAConfig

pytest.importorskip("diffusers", minversion="0.35")

from diffusers import hooks

from psa_core.hosts.diffusers import attention as host_attention
from psa_core.hosts.diffusers import patch

from ...support.diffusers_models import LAYERS, MODELS, TEXT, Model, cogvideox_1_0, cogvideox_1_5, wan_model
from ...support.tensors import relative_error

FULL = PSAConfig(block_n=32, mask_ratios={1: (0, 1)}, min_tokens=0)
SPARSE = FULL.replace(mask_ratios={1: (0, 0.3), 2: (0.3, 0.5), 4: (0.5, 0.6), 0: (0.6, 1)})

every_model = pytest.mark.parametrize("make", MODELS)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def hooked(transformer: torch.nn.Module) -> list[torch.nn.Module]:
    return [module for module in transformer.modules() if "_psa_layer" in vars(module)]


@every_model
def test_all_blocks_at_level_1_is_the_models_own_attention(make: Callable[[], Model]) -> None:
    model = make()
    dense = model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        assert relative_error(model(), dense) < 1e-4
    assert handle.report.dense_count == 0
    assert [(call.step, call.layer, call.density) for call in handle.report.sparse_calls()] == [(0, 0, 1), (0, 1, 1)]


@every_model
def test_sparse_is_finite_repeatable_and_different(make: Callable[[], Model]) -> None:
    model = make()
    dense = model()
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        random_state = torch.random.get_rng_state()
        first, second = model(), model()
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    assert relative_error(first, dense) > 1e-4
    assert 0 < handle.report.density() < 0.9


@every_model
def test_restore_leaves_no_trace(make: Callable[[], Model]) -> None:
    model = make()
    dense, processors = model(), model.processors()
    kinds = [type(module) for module in model.transformer.modules()]
    handle = patch(model.transformer, SPARSE, backend="torch")
    model()
    assert all(x is y for x, y in zip(model.processors(), processors, strict=True))
    handle.restore()
    handle.restore()
    assert torch.equal(model(), dense)
    assert all(x is y for x, y in zip(model.processors(), processors, strict=True))
    assert [type(module) for module in model.transformer.modules()] == kinds
    assert not model.transformer._forward_pre_hooks
    assert not hooked(model.transformer)
    assert handle.report.sparse_count == LAYERS


def test_an_error_inside_the_context_restores() -> None:
    model = wan_model()
    dense = model()
    with pytest.raises(ZeroDivisionError), patch(model.transformer, SPARSE, backend="torch"):
        raise ZeroDivisionError
    assert torch.equal(model(), dense)


def test_patching_twice_replaces_and_the_older_handle_leaves_the_newer_alone() -> None:
    model = wan_model()
    dense = model()
    older = patch(model.transformer, SPARSE, backend="torch")
    newer = patch(model.transformer, FULL, backend="torch")
    older.restore()
    assert relative_error(model(), dense) < 1e-4
    assert (older.report.sparse_count, newer.report.sparse_count) == (0, LAYERS)
    newer.restore()
    assert torch.equal(model(), dense)


def test_a_dense_preset_is_bit_identical_and_counted() -> None:
    for model in (wan_model(), cogvideox_1_5()):
        dense = model()
        with patch(model.transformer, FULL.replace(type="dense"), backend="torch") as handle:
            assert torch.equal(model(), dense)
        assert handle.report.dense_reasons == {"the preset is dense": LAYERS}
        assert handle.report.sparse_count == 0


def test_cross_attention_and_other_models_are_untouched() -> None:
    model, other = wan_model(), wan_model()
    with patch(model.transformer, SPARSE, backend="torch"):
        assert hooked(model.transformer) == [block.attn1 for block in model.blocks]
        assert hooked(other.transformer) == []


def test_steps_are_counted_by_timestep_and_a_new_run_starts_a_new_report() -> None:
    model = wan_model()
    handle = patch(model.transformer, SPARSE.replace(warmup_steps=1), backend="torch")
    for timestep in (900, 900, 500, 500, 100, 100):  # with and without prompt
        model(timestep)
    first = handle.report
    assert first.dense_reasons == {"warm-up": 2 * LAYERS}
    assert [(x.step, x.layer) for x in first.sparse_calls()] == [(1, 0), (1, 1)] * 2 + [(2, 0), (2, 1)] * 2
    for timestep in (900, 500):
        model(timestep)
    assert first.sparse_count == 4 * LAYERS
    assert handle.report.dense_reasons == {"warm-up": LAYERS}
    assert [(x.step, x.layer) for x in handle.report.sparse_calls()] == [(1, 0), (1, 1)]


@pytest.mark.parametrize("calls", [1, 2], ids=["one prompt", "two prompts"])
@every_model
def test_runs_of_one_step_are_told_apart_by_their_noise(make: Callable[[], Model], calls: int) -> None:
    model, reports = make(), []
    handle = patch(model.transformer, SPARSE, backend="torch")
    for _ in range(3):
        model.inputs["hidden_states"] = torch.randn_like(model.inputs["hidden_states"])
        for _ in range(calls):
            model.inputs["encoder_hidden_states"] = torch.randn_like(model.inputs["encoder_hidden_states"])
            model(999)
        reports.append(handle.report)
    assert [report.sparse_count for report in reports] == [calls * LAYERS] * 3
    assert {call.step for report in reports for call in report.sparse_calls()} == {0}


def test_solvers_that_call_the_model_twice_at_a_later_timestep_go_on() -> None:
    model = wan_model()
    handle = patch(model.transformer, SPARSE, backend="torch")
    for timestep in (900, 500, 500, 100, 100):
        model.inputs["hidden_states"] = torch.randn_like(model.inputs["hidden_states"])
        model(timestep)
    assert [call.step for call in handle.report.sparse_calls()] == [0] * LAYERS + [1, 1] * LAYERS + [2, 2] * LAYERS


def test_the_two_experts_of_a_pipeline_share_one_step_count() -> None:
    high, low = wan_model(), wan_model()
    pipeline = SimpleNamespace(transformer=high.transformer, transformer_2=low.transformer)
    with patch(pipeline, SPARSE.replace(warmup_steps=3), backend="torch") as handle:
        for model, timestep in ((high, 900), (high, 800), (low, 300), (low, 200)):
            model(timestep)
    assert handle.report.dense_reasons == {"warm-up": 3 * LAYERS}
    assert {x.step for x in handle.report.sparse_calls()} == {3}
    assert not hooked(high.transformer)
    assert not hooked(low.transformer)


def test_the_timestep_of_image_to_video_is_that_of_its_noisy_tokens() -> None:
    model = wan_model()
    with patch(model.transformer, SPARSE.replace(warmup_steps=1), backend="torch") as handle:
        for timestep in (900, 500):
            per_token = torch.full((2, 5 * 9 * 7), float(timestep))
            per_token[:, : 9 * 7] = 0
            model.transformer(timestep=per_token, return_dict=False, **model.inputs)
    assert handle.report.dense_reasons == {"warm-up": LAYERS}
    assert {x.step for x in handle.report.sparse_calls()} == {1}


def test_text_stays_at_level_1() -> None:
    model = cogvideox_1_0()
    with patch(model.transformer, SPARSE, backend="torch", keep_levels=True) as handle:
        model()
    levels = handle.report.level_maps[0, 0]
    assert levels.shape[2:] == (-(-(TEXT + 5 * 9 * 7) // 128), -(-(TEXT + 5 * 9 * 7) // 32))
    assert (levels[:, :, 0] == 1).all()
    assert (levels[..., 0] == 1).all()
    assert (levels != 1).any()


def test_short_sequences_and_warm_up_stay_dense_and_only_the_first_is_news(caplog) -> None:
    model = wan_model()
    dense = model()
    for config, reason, news in (
        (SPARSE.replace(min_tokens=4096), "315 tokens", 1),
        (SPARSE.replace(warmup_steps=9), "warm-up", 0),
    ):
        caplog.clear()
        with patch(model.transformer, config, backend="torch") as handle:
            assert torch.equal(model(), dense)
            model(500)
        ((counted, count),) = handle.report.dense_reasons.items()
        assert counted.startswith(reason)
        assert count == 2 * LAYERS
        assert len([record for record in caplog.records if counted in record.getMessage()]) == news


def test_a_layer_alone_stays_dense() -> None:
    model = wan_model()
    attention, tokens = model.blocks[0].attn1, torch.randn(1, 5, 128)
    dense = attention(tokens)
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        assert torch.equal(attention(tokens), dense)
    assert handle.report.dense_reasons == {"video grid unknown": 1}


def test_gradients_and_attention_masks_stay_dense() -> None:
    model = wan_model()
    attention, tokens = model.blocks[0].attn1, torch.randn(1, 5, 128)
    with patch(model.transformer, SPARSE, backend="torch") as handle:
        with torch.enable_grad():
            model().sum().backward()
        attention(tokens, None, torch.ones(1, 1, 5, 5, dtype=torch.bool).tril(), None)
    assert {reason.split(" (")[0]: count for reason, count in handle.report.dense_reasons.items()} == {
        "gradients are on": LAYERS,
        "attention mask": 1,
    }
    assert attention.to_q.weight.grad is not None


@pytest.mark.parametrize("name", ["to_q", "to_k", "to_v"])
def test_one_weight_that_wants_gradients_is_enough(name: str) -> None:
    model = wan_model()
    model.transformer.requires_grad_(False)
    weight = getattr(model.blocks[0].attn1, name).weight.requires_grad_()
    with torch.enable_grad():
        (expected,) = torch.autograd.grad(model().square().sum(), weight)
        with patch(model.transformer, SPARSE, backend="torch") as handle:
            (gradient,) = torch.autograd.grad(model().square().sum(), weight)
    assert torch.equal(gradient, expected)
    assert handle.report.dense_reasons == {"gradients are on (torch.no_grad turns them off)": LAYERS}
    assert handle.report.sparse_count == 0


def test_mixed_dtypes_are_left_to_the_model() -> None:
    model = wan_model()
    model.blocks[0].attn1.to_v.register_forward_hook(lambda module, args, out: out.double())
    with pytest.raises(RuntimeError, match="dtype") as unpatched:
        model()
    with patch(model.transformer, SPARSE, backend="torch") as handle, pytest.raises(RuntimeError) as patched:
        model()
    assert str(patched.value) == str(unpatched.value)
    dtypes = "torch.float32, torch.float32, torch.float64"
    assert handle.report.dense_reasons == {f"q, k and v of different dtypes ({dtypes})": 1}


def test_dense_calls_use_the_chosen_attention_backend(monkeypatch) -> None:
    model = wan_model()
    chosen = host_attention.AttentionBackendName("_native_math")
    for processor in model.processors():
        processor._attention_backend = chosen
    dense = model()
    used = []

    def dispatch(*args: Any, backend: Any, **kwargs: Any) -> torch.Tensor:
        used.append(backend)
        return original(*args, backend=backend, **kwargs)

    original = host_attention.dispatch_attention_fn
    monkeypatch.setattr(host_attention, "dispatch_attention_fn", dispatch)
    with patch(model.transformer, SPARSE.replace(warmup_steps=1), backend="torch") as handle:
        assert torch.equal(model(), dense)
        assert used == [chosen] * LAYERS
        model(500)
    assert used == [chosen] * LAYERS
    assert handle.report.sparse_count == LAYERS
    assert all(processor._attention_backend == chosen for processor in model.processors())


def test_a_processor_with_an_attention_of_its_own_is_left_alone_and_counted() -> None:
    model = wan_model()
    model.blocks[0].attn1.set_processor(lambda attention, hidden_states, *rest: hidden_states)
    alone = model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        assert relative_error(model(), alone) < 1e-4
    assert handle.report.dense_reasons == {"no call of torch's attention in the layer": 1}
    assert [call.layer for call in handle.report.sparse_calls()] == [1]


@pytest.mark.parametrize("make", [wan_model, cogvideox_1_0])
def test_projections_may_be_fused_while_patched(make: Callable[[], Model]) -> None:
    model = make()
    dense = model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        model.transformer.fuse_qkv_projections()
        assert relative_error(model(), dense) < 1e-4
    assert handle.report.sparse_count == LAYERS


def test_offloading_may_begin_while_patched_and_outlives_the_patch() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = wan_model()
    dense = model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        accelerate.cpu_offload_with_hook(model.transformer, execution_device="cpu")
        assert relative_error(model(), dense) < 1e-4
    assert handle.report.sparse_count == LAYERS
    hook, moved = model.transformer._hf_hook, []
    hook.pre_forward = lambda module, *args, **kwargs: moved.append(module) or (args, kwargs)
    assert torch.equal(model(), dense)
    assert moved == [model.transformer]


def test_hooks_of_others_may_come_while_patched_and_outlive_the_patch() -> None:
    class Double(hooks.ModelHook):
        def post_forward(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
            return 2 * output

    model = wan_model()
    with patch(model.transformer, FULL, backend="torch") as handle:
        for block in model.blocks:
            hooks.HookRegistry.check_if_exists_or_initialize(block.attn1).register_hook(Double(), "double")
        doubled = model()
    assert handle.report.sparse_count == LAYERS
    assert relative_error(model(), doubled) < 1e-4
    for block in model.blocks:
        block.attn1._diffusers_hook.remove_hook("double")
    assert relative_error(model(), doubled) > 1e-3


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (torch.nn.Linear(2, 2), "not Linear"),
        (SimpleNamespace(unet=None), "not SimpleNamespace"),
        (SimpleNamespace(transformer=torch.nn.Linear(2, 2)), "not SimpleNamespace with Linear"),
        (None, "not NoneType"),
    ],
)
def test_what_cannot_be_patched_is_refused_with_what_can(target: Any, named: str) -> None:
    with pytest.raises(TypeError, match=f"only a model of diffusers with attention.*{named}$"):
        patch(target, FULL)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"backend": "cuda"}, "backend = 'cuda'"),
        ({"map_memory": "2 GB"}, "map_memory = '2 GB': must be a number"),
        ({"map_memory": -1}, "map_memory = -1: must be a number"),
        ({"map_memory": float("nan")}, "map_memory = nan: must be a number"),
        ({"steps": "20"}, "steps = '20': must be a whole number"),
        ({"steps": -1}, "steps = -1: must be a whole number"),
    ],
)
def test_an_argument_that_is_none_is_refused_before_anything_is_patched(argument: dict[str, Any], said: str) -> None:
    model = wan_model()
    with pytest.raises(ConfigError, match=said):
        patch(model.transformer, FULL, **argument)
    assert hooked(model.transformer) == []
