"""What runs calls that stay dense: the model's own attention, or the backend of the settings' choice."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from psa_core import PSAConfig
from psa_core.hosts.run import Run
from psa_core.ops import dense_backends
from psa_core.ops.dense_backends import RefusalError, dense_attention, dense_refusal
from psa_core.report.report import Report

CPU = torch.device("cpu")


@pytest.fixture
def qkv() -> tuple[torch.Tensor, ...]:
    q, k, v = torch.randn(3, 1, 2, 64, 64).unbind()
    return q, k, v


@pytest.fixture
def sage(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A package in the place of SageAttention, which runs anywhere."""
    package = SimpleNamespace(
        sageattn=lambda q, k, v, tensor_layout, is_causal: scaled_dot_product_attention(q, k, v) + 1
    )
    monkeypatch.setitem(sys.modules, "sageattention", package)  # type: ignore[arg-type]
    monkeypatch.setattr(dense_backends, "refusal", lambda *_: None)
    return package


def test_by_default_the_model_s_own_attention_is_asked_for(qkv: Any) -> None:
    run = Run(PSAConfig())
    assert run.attend_dense(*qkv, "warm-up") is None
    assert not run.report.dense_backends


def test_dense_by_settings_goes_to_the_backend_and_the_rest_does_not(qkv: Any, sage: SimpleNamespace) -> None:
    run = Run(PSAConfig(dense_backend="sage"))
    for reason in ("warm-up", "dense layer", "last steps", "the preset is dense"):
        out = run.attend_dense(*qkv, reason, "attention3")
        assert out is not None
        assert torch.equal(out, sage.sageattn(*qkv, "HND", False))
    for reason in ("cross-attention", "video grid unknown", "100 tokens are fewer than min_tokens = 8192"):
        assert run.attend_dense(*qkv, reason) is None
    run.report.add_dense("warm-up")
    whole = Report.of([run.report])
    assert whole.line().endswith("; 4 by sage, in place of attention3")
    assert whole.as_dict()["dense_backends"] == {"sage": 4}
    assert whole.as_dict()["set_aside"] == ["attention3"]


@pytest.mark.parametrize(("error", "tries"), [(ValueError("no such shape"), 1), (RuntimeError("out of memory"), 3)])
def test_what_fails_in_a_call_falls_back_and_is_told_once(
    qkv: Any, sage: SimpleNamespace, caplog: pytest.LogCaptureFixture, error: Exception, tries: int
) -> None:
    calls = []

    def fail(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        raise error

    sage.sageattn = fail
    run = Run(PSAConfig(dense_backend="sage"))
    for _ in range(3):
        assert run.attend_dense(*qkv, "warm-up") is None
    # Memory may be there again; a shape stays what it is.
    assert len(calls) == tries
    assert run.report.dense_refusals == {f"sage: {error}": 3}
    assert len(caplog.records) == 1


def test_what_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, said in (("sageattention", "sage", "SageAttention"), ("comfy_kitchen",) * 2 + ("comfy-kitchen",)):
        monkeypatch.setitem(sys.modules, module, None)
        assert dense_refusal(name, CPU, torch.bfloat16, 128) == f"{said} is not installed"
        with pytest.raises(RefusalError, match="is not installed"):
            dense_attention(name, CPU)
    assert "runs on cpu" in str(dense_refusal("cudnn", CPU, torch.bfloat16, 128))


def test_a_trial_sees_wrong_results(sage: SimpleNamespace) -> None:
    with pytest.raises(RuntimeError, match="away from exact attention"):
        dense_backends._trial_of("sage")(CPU, torch.float32, 64)
    sage.sageattn = lambda q, k, v, tensor_layout, is_causal: scaled_dot_product_attention(q, k, v)
    dense_backends._trial_of("sage")(CPU, torch.float32, 64)


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [64, 128])
def test_cudnn_gives_what_the_model_s_own_gives(head_dim: int) -> None:
    device = torch.device("cuda")
    assert dense_refusal("cudnn", device, torch.bfloat16, head_dim) is None
    # Heads inside tokens, as models have them.
    q, k, v = torch.randn(3, 2, 1000, 4, head_dim, device=device, dtype=torch.bfloat16).transpose(2, 3).unbind()
    run = Run(PSAConfig(dense_backend="cudnn"))
    out = run.attend_dense(q, k, v, "warm-up")
    assert out is not None
    exact = scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert (out.float() - exact).norm() < 1e-2 * exact.norm()
    assert run.report.dense_backends == {"cudnn": 1}
