"""The page on transformers: its examples run as they are written, on a tiny random model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

import psa_core
from psa_core.hosts import transformers as host
from psa_core.hosts.transformers.implementation import Registration

from ...support.language_models import LAYERS, prompt, qwen2_5_vl
from ...support.tensors import Shape, random_qkv

PAGE = Path(psa_core.__file__).parent / "hosts" / "transformers" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
TOKENS = 600


def run(example: str, **names: Any) -> dict[str, Any]:
    """What an example has defined, with the imports of those before it."""
    imports = "\n".join(re.findall(r"^from .*$", "\n".join(EXAMPLES), re.MULTILINE))
    space = {"inputs": prompt(TOKENS), **names}
    with torch.no_grad():
        exec(compile(f"{imports}\n{example}", str(PAGE), "exec"), space)
    return space


@pytest.fixture
def short_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets that take them, and a backend that needs no GPU."""
    presets, patch, settings = psa_core.load_preset, host.patch, host.default_settings
    monkeypatch.setattr(psa_core, "load_preset", lambda *name: presets(*name).replace(min_tokens=0))
    monkeypatch.setattr(host, "default_settings", lambda config: settings(config).replace(min_tokens=0))
    monkeypatch.setattr(host, "patch", lambda *model, **more: patch(*model, backend="torch", **more))


@pytest.mark.usefixtures("short_prompts")
@pytest.mark.parametrize("number", [0, 1])
def test_a_model_that_is_patched(number: int) -> None:
    handle = run(EXAMPLES[number], model=qwen2_5_vl())["handle"]
    assert (handle.report.sparse_count, handle.report.dense_reasons.keys()) == (LAYERS, {"decoding"})


def test_a_model_that_is_loaded_by_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str, attn_implementation: dict[str, str]) -> Any:
        model = qwen2_5_vl()
        model.config.get_text_config()._attn_implementation_internal = attn_implementation["text_config"]
        return model

    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", load)
    for interface in (AttentionInterface, AttentionMaskInterface):
        monkeypatch.setattr(interface, "_global_mapping", dict(interface._global_mapping))
    monkeypatch.setattr(Registration, "_kept", False)
    model = run(EXAMPLES[2], path="a folder")["model"]
    assert host.report(model).dense_reasons.keys() == {f"{TOKENS} tokens are fewer than min_tokens = 8192", "decoding"}


def test_plain_tensors() -> None:
    q, k, v = random_qkv(Shape(1, 4, 300, 500))
    out = run(EXAMPLES[3], q=q, k=k[:, :2], v=v[:, :2])["out"]
    assert out.shape == q.shape
    assert len(EXAMPLES) == 4
