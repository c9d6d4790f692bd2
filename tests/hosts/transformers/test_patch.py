"""The transformers host, on tiny random models: patched, restored, copied, loaded by name, and refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from psa_core import ConfigError, RadialMask, load_preset, load_presets
from psa_core.hosts import transformers as host
from psa_core.hosts.transformers.settings import for_prompts
from psa_core.settings.at_step import config_at, needs_steps

from ...support.language_models import LAYERS, MODELS, prompt, qwen2_5_vl, qwen3
from ...support.tensors import relative_error
from .patching import FULL, SPARSE, TOKENS, every_model, patched


def registered() -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(AttentionInterface._global_mapping), dict(AttentionMaskInterface._global_mapping)


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
