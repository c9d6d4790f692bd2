"""Self-attention whose values are of another dtype than its queries, or want gradients, as in packs that train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io

from .override import OVERRIDE_KEY


class TestOddValues(io.ComfyNode):
    """Makes values odd, and them and the output what they were again in an override, beneath whatever comes later."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with odd values out."""
        return io.Schema(
            node_id="PSATestOddValues",
            category="psa/test",
            inputs=[io.Model.Input("model"), io.Combo.Input("kind", options=["float64", "gradients"])],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, kind: str) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        for i, block in enumerate(patched.get_model_object("diffusion_model").blocks):
            own = _odd(block.self_attn.v.forward, kind)
            patched.add_object_patch(f"diffusion_model.blocks.{i}.self_attn.v.forward", own)
        patched.model_options.setdefault("transformer_options", {})[OVERRIDE_KEY] = _as_it_was
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "psa_test", _recording)
        return io.NodeOutput(patched)


def _odd(forward: Callable[..., torch.Tensor], kind: str) -> Callable[..., torch.Tensor]:
    def odd(x: torch.Tensor) -> torch.Tensor:
        values = forward(x)
        return values.double() if kind == "float64" else values.clone().requires_grad_()

    return odd


def _as_it_was(func: Callable[..., Any], q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> Any:
    with torch.no_grad():
        return func(q, k, v.to(q.dtype), *args, **kwargs)


def _recording(executor: Any, *args: Any, **kwargs: Any) -> Any:
    with torch.inference_mode(False), torch.enable_grad():
        return executor(*args, **kwargs)
