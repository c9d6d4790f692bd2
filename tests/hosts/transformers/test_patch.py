"""The transformers host, on tiny random models: what is read sparse, what stays dense, what is left alone."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, StaticCache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from psa_core import ConfigError, PSAConfig, RadialMask, Schedule, load_preset, load_presets
from psa_core.hosts import transformers as host
from psa_core.hosts.transformers.settings import for_prompts
from psa_core.settings.at_step import config_at, needs_steps

from ...support.language_models import LAYERS, MODELS, gpt_oss, prompt, qwen2_5_vl, qwen3, qwen3_vl
from ...support.tensors import relative_error

FULL = PSAConfig(block_n=32, mask_ratios={1: (0, 1)}, min_tokens=0)
SPARSE = FULL.replace(mask_mode="topk", mask_ratios={1: (0, 0.3), 2: (0.3, 0.5), 4: (0.5, 0.6), 0: (0.6, 1)})
TOKENS = 200

every_model = pytest.mark.parametrize("make", MODELS)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def patched(model: Any, config: PSAConfig = FULL, **options: Any) -> host.Handle:
    return host.patch(model, config, backend="torch", **options)


def registered() -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(AttentionInterface._global_mapping), dict(AttentionMaskInterface._global_mapping)


def padded(starts: list[int], stops: list[int], tokens: int = TOKENS) -> dict[str, Any]:
    """A batch with padding in front of prompts and behind them."""
    inputs = prompt(tokens, len(starts))
    for row, start, stop in zip(inputs["attention_mask"], starts, stops, strict=True):
        row[:start], row[stop:] = 0, 0
    return inputs


def with_flash(monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> str:
    """Have transformers know what passes for FlashAttention and notes its calls; returns its name."""
    name = "flash_of_a_test"

    def flash(module: Any, q: Any, k: Any, v: Any, mask: Any, **arguments: Any) -> Any:
        calls.append((module.config._attn_implementation, mask, sorted(arguments)))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, q, k, v, None, **arguments)

    for interface in (AttentionInterface, AttentionMaskInterface):
        monkeypatch.setattr(interface, "_global_mapping", dict(interface._global_mapping))
    AttentionInterface.register(name, flash)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS["flash_attention_2"])
    return name


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@every_model
def test_all_blocks_at_level_1_is_the_models_own_attention(make: Callable[..., Any], implementation: str) -> None:
    model, inputs = make(attn_implementation=implementation), prompt(TOKENS)
    dense = model(**inputs).logits
    with patched(model) as handle:
        assert relative_error(model(**inputs).logits, dense) < 1e-4
    assert handle.report.dense_count == 0
    assert [(call.step, call.layer, call.density) for call in handle.report.sparse_calls()] == [(0, 0, 1), (0, 1, 1)]


@pytest.mark.parametrize("make", [qwen2_5_vl, qwen3_vl])
def test_the_vision_tower_is_left_alone(make: Callable[..., Any]) -> None:
    model, inputs = make(), prompt(TOKENS, video=(1, 16, 16))
    dense = model(**inputs).logits
    seen = []
    model.model.visual.register_forward_hook(lambda tower, args, out: seen.append(tower.config._attn_implementation))
    with patched(model) as handle:
        assert relative_error(model(**inputs).logits, dense) < 1e-4
    assert seen == ["sdpa"]
    assert (handle.report.sparse_count, handle.report.dense_count) == (LAYERS, 0)


@every_model
def test_sparse_is_finite_repeatable_and_different(make: Callable[..., Any]) -> None:
    model, inputs = make(), prompt(512)
    dense = model(**inputs).logits
    with patched(model, SPARSE) as handle:
        first, second = model(**inputs).logits, model(**inputs).logits
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    assert relative_error(first, dense) > 1e-4
    assert handle.report.sparse_count == LAYERS
    assert handle.report.density() < 0.9


@every_model
def test_what_comes_later_changes_nothing_before(make: Callable[..., Any]) -> None:
    model, inputs = make(), prompt(512)
    # Queries of a block share a row of the level map.
    first = 3 * SPARSE.block_m
    with patched(model, SPARSE):
        before = model(**inputs).logits
        inputs["input_ids"][:, first:] = (inputs["input_ids"][:, first:] + 7) % 60
        after = model(**inputs).logits
    assert torch.equal(before[:, :first], after[:, :first])
    assert not torch.equal(before[:, first:], after[:, first:])


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@every_model
def test_generation_goes_on_right_after_a_sparse_prompt(make: Callable[..., Any], cache: str) -> None:
    # In float64, in which no two words are equal up to rounding.
    model, inputs = make().double(), prompt(TOKENS)
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "cache_implementation": cache}
    if cache == "static":
        options["disable_compile"] = True
    dense = model.generate(**inputs, **options)
    with patched(model) as handle:
        assert torch.equal(model.generate(**inputs, **options), dense)
        assert handle.report.sparse_count == LAYERS
        assert handle.report.dense_reasons == {"decoding": 3 * LAYERS}
        model.generate(**inputs, **options)
    # A report for each prompt.
    assert handle.report.sparse_count == LAYERS


@every_model
def test_prompts_read_in_chunks(make: Callable[..., Any]) -> None:
    model, inputs = make(), prompt(320)

    def read() -> torch.Tensor:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        first = model(ids[:, :100], attention_mask=mask[:, :100], use_cache=True)
        rest = model(ids[:, 100:], attention_mask=mask, past_key_values=first.past_key_values)
        return torch.cat([first.logits, rest.logits], 1)

    dense = read()
    with patched(model) as handle:
        assert relative_error(read(), dense) < 1e-4
    assert [(call.step, call.layer) for call in handle.report.sparse_calls()] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert handle.report.dense_count == 0


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@every_model
def test_padding_is_cut_away_row_by_row(make: Callable[..., Any], implementation: str) -> None:
    starts, stops = [0, 70, 0, 70], [TOKENS, TOKENS, 130, TOKENS]
    model, inputs = make(attn_implementation=implementation), padded(starts, stops)
    dense = model(**inputs).logits
    with patched(model) as handle:
        sparse = model(**inputs).logits
    for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        assert relative_error(sparse[row, start:stop], dense[row, start:stop]) < 1e-4
    assert torch.isfinite(sparse).all()
    assert (handle.report.sparse_count, handle.report.dense_count) == (3 * LAYERS, 0)


def test_short_rows_of_a_batch_stay_dense() -> None:
    model, inputs = qwen3(), padded([0, 120], [TOKENS, TOKENS])
    dense = model(**inputs).logits
    with patched(model, SPARSE.replace(min_tokens=100)) as handle:
        sparse = model(**inputs).logits
    assert relative_error(sparse[1, 120:], dense[1, 120:]) < 1e-4
    assert handle.report.dense_reasons == {"80 tokens are fewer than min_tokens = 100": LAYERS}
    assert handle.report.sparse_count == LAYERS


def test_padded_batches_generate_what_they_would_alone() -> None:
    model, inputs = qwen2_5_vl().double(), padded([0, 70], [TOKENS, TOKENS])
    dense = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    with patched(model):
        assert torch.equal(model.generate(**inputs, max_new_tokens=3, do_sample=False), dense)


def test_padding_within_a_prompt_stays_dense() -> None:
    model, inputs = qwen3(), prompt(TOKENS)
    inputs["attention_mask"][0, 50:60] = 0
    dense = model(**inputs).logits
    with patched(model, SPARSE) as handle:
        assert torch.equal(model(**inputs).logits, dense)
    assert handle.report.dense_reasons == {"padding within prompts": LAYERS}


def test_a_mask_of_the_callers_own_stays_dense() -> None:
    model, inputs = qwen3(), prompt(TOKENS)
    inputs["attention_mask"] = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool).tril().tril(-1).logical_or(
        torch.eye(TOKENS, dtype=torch.bool)
    )  # fmt: skip
    dense = model(**inputs).logits
    with patched(model, SPARSE) as handle:
        assert torch.equal(model(**inputs).logits, dense)
    assert handle.report.dense_reasons == {"attention mask": LAYERS}


def test_sliding_windows_stay_dense() -> None:
    model, inputs = qwen3(), prompt(TOKENS)
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 64
    with patched(model, SPARSE) as handle:
        model(**inputs)
    assert handle.report.dense_reasons == {"sliding window": LAYERS}


def test_sinks_that_a_model_has_learned_stay_dense() -> None:
    model, inputs = gpt_oss(), prompt(TOKENS)
    dense = model(**inputs).logits
    with patched(model, SPARSE) as handle:
        assert torch.equal(model(**inputs).logits, dense)
        copied = copy.deepcopy(model)
    assert handle.report.dense_reasons == {"sliding window": 1, "sinks that the model has learned": 1}
    # Its settings name psa alone, and sdpa would leave the sinks out.
    with pytest.raises(ConfigError, match="use patch"):
        copied(**inputs)
    with patched(copied, SPARSE):
        assert torch.equal(copied(**inputs).logits, dense)


@pytest.mark.parametrize("config", [FULL, FULL.replace(min_tokens=TOKENS + 1)])
def test_models_that_ask_whether_there_is_a_mask(config: PSAConfig) -> None:
    model, inputs = qwen3(), prompt(TOKENS)

    def ask(layer: Any, args: Any, kwargs: Any) -> Any:
        return args, kwargs | {"is_causal": kwargs["attention_mask"] is None}

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(ask, with_kwargs=True)

    def read() -> torch.Tensor:
        behind = model(**inputs, past_key_values=StaticCache(model.config, max_cache_len=TOKENS + 8))
        return torch.cat([model(**given).logits for given in (inputs, padded([0, 0], [TOKENS, 150]))] + [behind.logits])

    torch.manual_seed(0)
    dense = read()
    with patched(model, config):
        torch.manual_seed(0)
        sparse = read()
    # What stands at padding is seen by nobody.
    sparse[2, 150:] = dense[2, 150:] = 0
    assert relative_error(sparse, dense) < 1e-4


def test_several_prompts_in_one_row_stay_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = qwen3(), prompt(TOKENS)["input_ids"]
    inputs = {"input_ids": ids, "position_ids": torch.arange(TOKENS)[None] % 100, "use_cache": False}
    for name in ("sdpa", with_flash(monkeypatch, [])):
        model.config._attn_implementation_internal = name
        dense = model(**inputs).logits
        with patched(model, SPARSE) as handle:
            assert torch.equal(model(**inputs).logits, dense)
        assert handle.report.sparse_count == 0


def test_short_prompts_and_dense_layers_stay_dense() -> None:
    model, inputs = qwen3(), prompt(TOKENS)
    dense = model(**inputs).logits
    with patched(model, SPARSE.replace(min_tokens=TOKENS + 1)) as handle:
        assert torch.equal(model(**inputs).logits, dense)
    assert handle.report.dense_reasons == {f"{TOKENS} tokens are fewer than min_tokens = {TOKENS + 1}": LAYERS}
    with patched(model, SPARSE.replace(schedule=Schedule(dense_layers=[0], warmup="25%"))) as handle:
        model(**inputs)
    assert (handle.report.sparse_count, handle.report.dense_reasons) == (1, {"dense layer": 1})


def test_gradients_stay_dense() -> None:
    model, inputs = qwen3(), prompt(TOKENS)
    with torch.enable_grad(), patched(model, SPARSE) as handle:
        model(**inputs).logits.sum().backward()
    assert sum(handle.report.dense_reasons.values()) == LAYERS
    assert model.model.layers[0].self_attn.q_proj.weight.grad is not None


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpoints_give_the_gradients_of_dense_attention(reentrant: bool) -> None:
    model, inputs = qwen3().train(), prompt(TOKENS)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()

    def backward() -> list[torch.Tensor]:
        model.zero_grad()
        with torch.enable_grad():
            model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
        return [weight.grad.clone() for weight in model.parameters()]

    dense = backward()
    with patched(model, SPARSE):
        assert all(map(torch.equal, backward(), dense))


@every_model
def test_one_of_two_models_is_patched_and_restored(make: Callable[..., Any]) -> None:
    model, before = make(), registered()
    # With the very same settings.
    other = type(model)(model.config).eval()
    inputs, config = prompt(TOKENS), copy.deepcopy(model.config.to_dict())
    dense, of_other = model(**inputs).logits, other(**inputs).logits
    handle = patched(model, SPARSE)
    sparse = model(**inputs).logits
    assert torch.equal(other(**inputs).logits, of_other)
    assert handle.report.sparse_count == LAYERS
    handle.restore()
    handle.restore()
    assert not torch.equal(sparse, dense)
    assert torch.equal(model(**inputs).logits, dense)
    assert registered() == before
    assert model.config.to_dict() == config
    assert model.config.get_text_config()._attn_implementation == "sdpa"
    assert not [x for x in model.modules() if "_psa_layer" in vars(x) or "_psa_patch" in vars(x)]


def test_patching_again_replaces() -> None:
    model, inputs = qwen3(), prompt(TOKENS)
    first = patched(model, SPARSE)
    with patched(model) as second:
        first.restore()
        model(**inputs)
    assert first.report.sparse_count == 0
    assert second.report.density() == 1
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("first_goes_first", [False, True])
def test_a_part_of_a_model_and_the_whole_are_patched_one_after_the_other(first_goes_first: bool) -> None:
    model, inputs = qwen2_5_vl(), prompt(TOKENS)
    dense = model(**inputs).logits
    handles = [patched(model.model), patched(model, SPARSE)]
    assert host.report(model) is handles[1].report
    assert not torch.equal(model(**inputs).logits, dense)
    for handle in handles if first_goes_first else handles[::-1]:
        handle.restore()
    assert torch.equal(model(**inputs).logits, dense)
    assert model.config.get_text_config()._attn_implementation == "sdpa"


def test_copies_are_not_patched() -> None:
    model, inputs, before = qwen3(), prompt(TOKENS), registered()
    dense = model(**inputs).logits
    with patched(model, SPARSE) as handle:
        copied, pickled = copy.deepcopy(model), pickle.dumps(model)
        assert torch.equal(copied(**inputs).logits, dense)
        assert handle.report.sparse_count == 0
    assert torch.equal(copied(**inputs).logits, dense)
    for interface, names in zip((AttentionInterface, AttentionMaskInterface), before, strict=True):
        # As in another process.
        interface._global_mapping = dict(names)
    assert torch.equal(pickle.loads(pickled)(**inputs).logits, dense)
    host.implementation.Registration._kept = False
    for interface, names in zip((AttentionInterface, AttentionMaskInterface), before, strict=True):
        interface._global_mapping = names


@pytest.mark.parametrize("names", ["psa", {"text_config": "psa"}])
def test_models_loaded_by_name(names: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for interface in (AttentionInterface, AttentionMaskInterface):
        monkeypatch.setattr(interface, "_global_mapping", dict(interface._global_mapping))
    model, inputs = qwen2_5_vl(), prompt(TOKENS, video=(1, 16, 16))
    dense = model(**inputs).logits
    model.save_pretrained(tmp_path)
    host.register(FULL)
    named = type(model).from_pretrained(tmp_path, attn_implementation=names).eval()
    assert relative_error(named(**inputs).logits, dense) < 1e-4
    report = host.report(named)
    with pytest.raises(ConfigError, match=r"attn_implementation = 'sdpa': patch\(model\)"):
        host.report(model)
    assert (report.sparse_count, report.dense_count) in ((LAYERS, 0), (0, LAYERS))


def test_compiled_decoding_and_a_mask_that_is_looked_at() -> None:
    model, inputs = qwen3(attn_implementation="eager"), prompt(TOKENS)
    dense = model(**inputs).logits
    read = []

    def look(layer: Any, args: Any, kwargs: Any) -> None:
        read.append(kwargs["attention_mask"][..., :5, :5].sum().item())

    hook = model.model.layers[1].register_forward_pre_hook(look, with_kwargs=True)
    with patched(model):
        assert relative_error(model(**inputs).logits, dense) < 1e-4
        hook.remove()
        cache = StaticCache(model.config, max_cache_len=TOKENS + 8)
        model(**inputs, past_key_values=cache)
        after = torch.compile(model, backend="eager")(torch.tensor([[5]]), past_key_values=cache).logits
    assert read == [15]
    ids = torch.cat([inputs["input_ids"], torch.tensor([[5]])], 1)
    assert relative_error(after[:, -1], model(ids).logits[:, -1]) < 1e-4


def test_dense_calls_are_the_very_calls_that_the_model_would_have_made(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    name = with_flash(monkeypatch, calls)
    model, inputs = qwen3(), padded([0, 70], [TOKENS, TOKENS])
    # Chosen in the usual way, it would be looked for among packages.
    model.config._attn_implementation_internal = name
    model(**inputs)
    with patched(model, SPARSE.replace(min_tokens=TOKENS + 1)):
        model(**inputs)
    for (own, mask, names), (own_patched, mask_patched, names_patched) in zip(calls[:2], calls[2:], strict=True):
        assert (own, names) == (own_patched, names_patched) == (name, names)
        assert torch.equal(mask, mask_patched)


def test_a_model_that_sdpa_does_not_fit_is_refused_by_the_name() -> None:
    q = torch.zeros(1, 1, 1, 64)
    module = SimpleNamespace(config=object(), is_causal=True)
    with pytest.raises(ConfigError, match="sinks"):
        host.implementation._attention(module, q, q, q, None, s_aux=torch.zeros(1))


def test_settings_that_need_a_denoising_or_a_grid() -> None:
    with pytest.raises(ConfigError, match="radial"):
        patched(qwen3(), FULL.replace(radial=RadialMask()))
    with pytest.raises(ConfigError, match="timestep"):
        patched(qwen3(), FULL.replace(mask_mode="timestep"))
    with pytest.raises(ConfigError, match="config = 'auto_balanced': must be a PSAConfig: load_preset"):
        patched(qwen3(), "auto_balanced")
    with pytest.raises(ConfigError, match=r"calibration = 'file.yaml': must be a Calibration: Calibration.load"):
        patched(qwen3(), FULL.replace(mask_mode="calibrated"), calibration="file.yaml")
    with pytest.raises(TypeError, match="only a model of transformers"):
        patched(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("preset", load_presets()["Qwen2.5-VL"])
def test_no_preset_wants_the_steps_of_a_denoising(preset: str) -> None:
    config = for_prompts(load_preset("Qwen2.5-VL", preset))
    assert not needs_steps(config)
    assert config_at(config, 0, None) == config_at(config, 9, None)


def test_default_presets() -> None:
    assert [host.family_of(make().config.get_text_config()) for make in MODELS] == [
        "Qwen2.5-VL",
        "Qwen3-VL",
        "Language",
    ]
    with host.patch(qwen3()) as handle:
        qwen = handle._prompt.run.config
    assert (qwen.mask_mode, qwen.min_tokens) == ("topk", 8192)


def test_errors_are_measured() -> None:
    model = qwen3()
    with patched(model, SPARSE, measure_errors=True) as handle:
        model(**prompt(512))
    assert all(0 < error.error < 1 for error in handle.report.attention_errors())


def test_calibrated() -> None:
    model, inputs = qwen3(), prompt(512)
    config = FULL.replace(mask_mode="calibrated", target_density=0.5)
    with patched(model, config) as handle:
        first = model(**inputs).logits
        chosen = handle.calibration("tiny")
    with patched(model, config, calibration=chosen) as handle:
        assert torch.equal(model(**inputs).logits, first)
    assert len(chosen.recipes) == LAYERS
    of_a_video = dataclasses.replace(chosen.recipes[0][0], order="Gilbert")
    recipes = {**chosen.recipes, 1: [of_a_video] * chosen.heads}
    with pytest.raises(ConfigError, match="calibration = 'Gilbert': must have all heads in raster order"):
        patched(model, config, calibration=dataclasses.replace(chosen, recipes=recipes))


@pytest.mark.gpu
@every_model
def test_kernels_read_a_long_prompt(make: Callable[..., Any]) -> None:
    model = make().to("cuda", torch.bfloat16)
    inputs = {name: x.cuda() for name, x in prompt(9000).items()}
    dense = model(**inputs).logits
    with host.patch(model, PSAConfig(mask_ratios={1: (0, 1)}), backend="triton") as handle:
        assert relative_error(model(**inputs).logits, dense) < 0.03
        assert handle.report.sparse_count == LAYERS
    with host.patch(model, backend="triton") as handle:
        model.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert handle.report.density() < 0.3
    assert handle.report.dense_reasons == {"decoding": 3 * LAYERS}
