"""What ComfyUI does from 0.35 on, on the one that is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy.ldm.minimax.model import PackedLayout
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io


class TestH3Layout(io.ComfyNode):
    """MiniMax H3 without a layout beside its prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Each block's options hold it and its number, or nothing does, or one of a longer prompt is beside it.

        The node goes before the patch.
        """
        return io.Schema(
            node_id="PSATestH3Layout",
            category="psa/test",
            inputs=[io.Model.Input("model"), io.Combo.Input("layout", options=["in options", "nowhere", "stale"])],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, layout: str) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        beside = _stale_layout if layout == "stale" else _no_layout
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "psa_test_h3_layout", beside)
        if layout == "in options":
            patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "psa_test_h3_layout", _forward)
        return io.NodeOutput(patched)


def _no_layout(executor: Any, *args: Any, minimax_payload: dict[str, Any], **kwargs: Any) -> Any:
    payload = {key: value for key, value in minimax_payload.items() if key != "layout"}
    return executor(*args, minimax_payload=payload, **kwargs)


def _stale_layout(executor: Any, *args: Any, minimax_payload: dict[str, Any], **kwargs: Any) -> Any:
    text, *others = minimax_payload["layout"].signature
    given = {key: minimax_payload.get(key) for key in ("keyframes", "refs")}
    payload = minimax_payload | {"layout": PackedLayout(text + 1, *others, **given)}
    return executor(*args, minimax_payload=payload, **kwargs)


def _forward(
    executor: Any, x: Any, timestep: Any, context: Any, options: dict[str, Any], minimax_payload: Any, **kwargs: Any
) -> Any:
    # The model pads latents to patches of 2 x 2.
    frames, height, width = x[0].shape[2:]
    even = height + height % 2, width + width % 2
    given = {key: minimax_payload.get(key) for key in ("keyframes", "refs")}
    options["minimax_h3_layout"] = PackedLayout(context.shape[1], frames, *even, x[1].shape[-1], **given)
    blocks = {("double_block", i): _numbered(i) for i in range(len(executor.class_obj.blocks))}
    options["patches_replace"] = {"dit": blocks}
    return executor(x, timestep, context, options, minimax_payload=minimax_payload, **kwargs)


def _numbered(index: int) -> Callable[..., Any]:
    def replace(args: dict[str, Any], more: dict[str, Any]) -> Any:
        args["transformer_options"]["block_index"] = index
        return more["original_block"](args)

    return replace
