"""What the transformers host reads sparse, on tiny random models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from psa_core import ConfigError, PSAConfig
from psa_core.hosts import transformers as host

from ...support.language_models import LAYERS, prompt, qwen2_5_vl, qwen3, qwen3_vl
from ...support.tensors import relative_error
from .patching import FULL, SPARSE, TOKENS, every_model, padded, patched


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
