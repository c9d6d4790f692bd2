"""An attention override from another pack, as far as the pack under test can tell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

OVERRIDE_KEY = "optimized_attention_override"


class TestOverride(io.ComfyNode):
    """Counts the attention calls that reach it and changes nothing."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`overwrite` drops an override it finds, as Sage and Flash nodes do; `chain` calls it."""
        return io.Schema(
            node_id="PSATestOverride",
            category="psa/test",
            inputs=[
                io.Model.Input("model"),
                io.String.Input("path", tooltip="JSON file: query and key shapes to the number of calls."),
                io.Combo.Input("previous", options=["overwrite", "chain"], default="overwrite"),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, path: str, previous: str) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        options = patched.model_options.setdefault("transformer_options", {})
        inner = options.get(OVERRIDE_KEY) if previous == "chain" else None
        options[OVERRIDE_KEY] = _counting_override(Path(path), inner)
        return io.NodeOutput(patched)


def _counting_override(path: Path, inner: Callable[..., Any] | None) -> Callable[..., Any]:
    counts: Counter[str] = Counter()

    def override(func: Callable[..., Any], q: torch.Tensor, k: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        counts[f"{tuple(q.shape)} {tuple(k.shape)}"] += 1
        path.write_text(json.dumps(counts), encoding="utf-8")
        if inner is not None:
            return inner(func, q, k, *args, **kwargs)
        return func(q, k, *args, **kwargs)

    return override
