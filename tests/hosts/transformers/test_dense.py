"""What the transformers host leaves dense, on tiny random models, and that it is what the model would have run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, StaticCache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from psa_core import ConfigError, PSAConfig, Schedule

from ...support.language_models import LAYERS, gpt_oss, prompt, qwen3
from ...support.tensors import relative_error
from .patching import FULL, SPARSE, TOKENS, padded, patched


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


def test_a_prompt_of_a_few_tokens_is_no_decoding() -> None:
    model, inputs = qwen3(), prompt(40)
    dense = model(**inputs).logits
    with patched(model, SPARSE.replace(min_tokens=100)) as handle:
        assert torch.equal(model(**inputs).logits, dense)
        assert handle.report.dense_reasons == {"40 tokens are fewer than min_tokens = 100": LAYERS}
        model(**padded([0, 39], [40, 40], 40))
    assert handle.report.dense_count == LAYERS


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

    def gradients() -> torch.Tensor:
        model.zero_grad()
        with torch.enable_grad():
            model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    dense = gradients()
    with patched(model, SPARSE):
        assert relative_error(gradients(), dense) < 1e-4


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
