"""A model compiled by another pack."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_api.torch_helpers import set_torch_compile_wrapper


class TestCompile(io.ComfyNode):
    """Compiles a model as the stock node (whole) and KJNodes' (its blocks) do, without code for the device."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The guards that the stock node drops are dropped, and those on torch's state unless it `keeps_state`."""
        return io.Schema(
            node_id="PSATestCompile",
            category="psa/test",
            inputs=[
                io.Model.Input("model"),
                io.Boolean.Input("fullgraph"),
                io.Boolean.Input("blocks"),
                io.Boolean.Input("keeps_state", default=True, optional=True),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, fullgraph: bool, blocks: bool, keeps_state: bool = True) -> io.NodeOutput:
        """Compile in a clone."""
        compiled = model.clone()
        keys = ["diffusion_model"]
        if blocks:
            keys = [f"diffusion_model.blocks.{i}" for i in range(len(model.get_model_object("diffusion_model").blocks))]
        options = {"guard_filter_fn": _without_options if keeps_state else _without_state}
        set_torch_compile_wrapper(model=compiled, backend="aot_eager", options=options, fullgraph=fullgraph, keys=keys)
        return io.NodeOutput(compiled)


def _without_options(guards: Any) -> list[bool]:
    return ["transformer_options" not in guard.name for guard in guards]


def _without_state(guards: Any) -> list[bool]:
    states = [guard.guard_type == "GLOBAL_STATE" for guard in guards]
    return [kept and not state for kept, state in zip(_without_options(guards), states, strict=True)]
