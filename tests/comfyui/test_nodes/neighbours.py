"""What other packs do to a model: copy its options, replace its forward, compile it, put overrides on top again."""

from __future__ import annotations

import copy
import functools
import itertools
import pickle
import time
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.latest import io
from comfy_api.torch_helpers import set_torch_compile_wrapper

from .override import OVERRIDE_KEY


class TestCopy(io.ComfyNode):
    """Hands on a clone whose options are copies, and copies them again in every forward."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, its copy out."""
        return io.Schema(
            node_id="PSATestCopy",
            category="psa/test",
            inputs=[io.Model.Input("model"), io.Combo.Input("way", options=["deepcopy", "pickle"])],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, way: str) -> io.NodeOutput:
        """Copy."""
        copied = model.clone()
        copied.model_options = _COPIES[way](model.model_options)
        copied.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "psa_test", _COPYING[way])
        return io.NodeOutput(copied)


class TestClear(io.ComfyNode):
    """Hands on a clone whose options for the model are none, with the wrappers that it had."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, its clone out."""
        return _model_node("PSATestClear")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Clear."""
        cleared = model.clone()
        cleared.model_options["transformer_options"] = {}
        return io.NodeOutput(cleared)


class TestOwnForward(io.ComfyNode):
    """Replaces Wan's forward by one that calls the blocks without their options, as NAG's and TeaCache's packs do."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with another forward out."""
        return _model_node("PSATestOwnForward")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        network = patched.get_model_object("diffusion_model")
        patched.add_object_patch("diffusion_model.forward_orig", _own_forward.__get__(network))
        return io.NodeOutput(patched)


class TestBareBlocks(io.ComfyNode):
    """Has a model's forward call its blocks without their options, as TeaCache's packs do, but not what is before."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with another forward out."""
        return _model_node("PSATestBareBlocks")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        own = functools.partial(_with_bare_blocks, patched.get_model_object("diffusion_model"))
        patched.add_object_patch("diffusion_model.forward_orig", own)
        return io.NodeOutput(patched)


class TestOwnAttention(io.ComfyNode):
    """Replaces every self-attention's forward by one that asks nobody, as KJNodes' Sage node for less memory does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with other attention out."""
        return _model_node("PSATestOwnAttention")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        for i, block in enumerate(patched.get_model_object("diffusion_model").blocks):
            for name in ("self_attn", "cross_attn"):
                own = _zeros.__get__(getattr(block, name))
                patched.add_object_patch(f"diffusion_model.blocks.{i}.{name}.forward", own)
        return io.NodeOutput(patched)


class TestCompile(io.ComfyNode):
    """Compiles a model as the stock node (whole) and KJNodes' (its blocks) do, without code for the device."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The guards that the stock node drops are dropped."""
        return io.Schema(
            node_id="PSATestCompile",
            category="psa/test",
            inputs=[io.Model.Input("model"), io.Boolean.Input("fullgraph"), io.Boolean.Input("blocks")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, fullgraph: bool, blocks: bool) -> io.NodeOutput:
        """Compile in a clone."""
        compiled = model.clone()
        count = len(model.get_model_object("diffusion_model").blocks)
        keys = [f"diffusion_model.blocks.{i}" for i in range(count)] if blocks else ["diffusion_model"]
        options = {"guard_filter_fn": _without_options}
        set_torch_compile_wrapper(model=compiled, backend="eager", options=options, fullgraph=fullgraph, keys=keys)
        return io.NodeOutput(compiled)


class TestTwice(io.ComfyNode):
    """Runs the model once more within each forward, with the options that it is handed, as guidance packs do."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with a forward within each forward out."""
        return _model_node("PSATestTwice")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Patch a clone."""

        def apply_model(executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
            *others, options = args[:4]
            if not options.get("psa_test_inner"):
                inner = {**options, "psa_test_inner": True}
                executor.class_obj.apply_model(x, t, *others, inner, *args[4:], **kwargs)
            return executor(x, t, *args, **kwargs)

        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "psa_test_twice", apply_model)
        return io.NodeOutput(patched)


class TestSparseAttention(io.ComfyNode):
    """Puts its override on top of what it finds, again at every step, as ComfyUI's Model Sparse Attention does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with an override whose attention gives zeros out."""
        return _model_node("PSATestSparseAttention")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        installed: set[Callable[..., Any]] = set()
        _put_on_top(patched.model_options.setdefault("transformer_options", {}), installed)

        def again(patcher: Any, timestep: Any, model_options: dict[str, Any], *args: Any) -> None:
            _put_on_top(model_options["transformer_options"], installed)

        patched.add_callback_with_key(CallbacksMP.ON_PREPARE_STATE, "psa_test", again)
        return io.NodeOutput(patched)


class TestBreakOff(io.ComfyNode):
    """Ends a run before it is done, in the middle of the model: by an error, for want of memory, by the user."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`step` is that of the sampler call in which the run ends."""
        return io.Schema(
            node_id="PSATestBreakOff",
            category="psa/test",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("kind", options=["error", "out of memory", "interrupt"]),
                io.Int.Input("step", default=0),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, kind: str, step: int) -> io.NodeOutput:
        """Patch a clone."""

        def apply_model(executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
            out = executor(x, t, *args, **kwargs)
            sigmas = (args[3] if len(args) > 3 else kwargs["transformer_options"])["sample_sigmas"]
            if float(t.max()) <= float(sigmas[step]):
                _break_off(kind)
            return out

        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "psa_test_break_off", apply_model)
        return io.NodeOutput(patched)


class TestSlow(io.ComfyNode):
    """Takes time for each forward, as large models do."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`seconds` go by before each forward."""
        return io.Schema(
            node_id="PSATestSlow",
            category="psa/test",
            inputs=[io.Model.Input("model"), io.Float.Input("seconds", default=0.3)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, seconds: float) -> io.NodeOutput:
        """Patch a clone."""

        def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds)
            return executor(*args, **kwargs)

        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "psa_test_slow", apply_model)
        return io.NodeOutput(patched)


class TestOneByOne(io.ComfyNode):
    """Runs prompts together in every second step alone, as ComfyUI does where memory is short at times."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """MODEL in, MODEL out."""
        return _model_node("PSATestOneByOne")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Patch a clone."""
        steps = itertools.count()

        def calc_cond_batch(executor: Any, model: Any, conds: list[Any], *args: Any) -> list[torch.Tensor]:
            if next(steps) % 2 == 0:
                return executor(model, conds, *args)
            # Of a list of prompts ComfyUI begins with the last.
            return [executor(model, [cond], *args)[0] for cond in reversed(conds)][::-1]

        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "psa_test_one_by_one", calc_cond_batch)
        return io.NodeOutput(patched)


class TestUnreadable(io.ComfyNode):
    """The numbers of a run cannot be read when it has ended, as after an error of a GPU that nothing has noticed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """MODEL in, MODEL out."""
        return _model_node("PSATestUnreadable")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Patch a clone."""

        def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
            (options,) = [x for x in args if isinstance(x, dict) and "psa_run" in x]
            out = executor(*args, **kwargs)
            options["psa_run"].run.report.sparse_calls = _unreadable
            return out

        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "psa_test_unreadable", apply_model)
        return io.NodeOutput(patched)


def _unreadable() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def _break_off(kind: str) -> None:
    if kind == "error":
        raise RuntimeError("the test broke off")
    if kind == "out of memory":
        raise torch.OutOfMemoryError("the test found no memory")
    comfy.model_management.interrupt_current_processing()
    comfy.model_management.throw_exception_if_processing_interrupted()


NEIGHBOURS = [
    TestBareBlocks,
    TestBreakOff,
    TestClear,
    TestCopy,
    TestOwnForward,
    TestOwnAttention,
    TestCompile,
    TestOneByOne,
    TestSlow,
    TestSparseAttention,
    TestTwice,
    TestUnreadable,
]


def _deep_copying(executor: Any, *args: Any, **kwargs: Any) -> Any:
    return executor(*(copy.deepcopy(x) if isinstance(x, dict) else x for x in args), **kwargs)


def _pickling(executor: Any, *args: Any, **kwargs: Any) -> Any:
    (options,) = [x for x in args if isinstance(x, dict)]
    _pickled(options)
    return executor(*args, **kwargs)


def _pickled(options: dict[str, Any]) -> dict[str, Any]:
    return pickle.loads(pickle.dumps(options))


_BLOCKS = ("blocks", "vace_blocks", "double_blocks", "single_blocks", "visual_transformer_blocks")
_COPIES = {"deepcopy": copy.deepcopy, "pickle": _pickled}
_COPYING = {"deepcopy": _deep_copying, "pickle": _pickling}


def _model_node(node_id: str) -> io.Schema:
    return io.Schema(
        node_id=node_id, category="psa/test", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()]
    )


def _own_forward(
    network: Any,
    x: torch.Tensor,
    t: torch.Tensor,
    context: torch.Tensor,
    clip_fea: Any = None,
    freqs: Any = None,
    **_: Any,
) -> torch.Tensor:
    """Text-to-video of Wan's ``forward_orig``."""
    from comfy.ldm.wan.model import sinusoidal_embedding_1d

    x = network.patch_embedding(x.float()).to(x.dtype)
    grid = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    e = network.time_embedding(sinusoidal_embedding_1d(network.freq_dim, t.flatten()).to(dtype=x[0].dtype))
    e = e.reshape(t.shape[0], -1, e.shape[-1])
    e0 = network.time_projection(e).unflatten(2, (6, network.dim))
    context = network.text_embedding(context)
    for block in network.blocks:
        x = block(x, e=e0, freqs=freqs, context=context, context_img_len=None)
    return network.unpatchify(network.head(x, e), grid)


def _with_bare_blocks(network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The model's own ``forward_orig``, with functions in the place of its blocks."""
    own = {name: network._modules.pop(name) for name in _BLOCKS if name in network._modules}
    for name, blocks in own.items():
        object.__setattr__(network, name, [functools.partial(_bare, block) for block in blocks])
    try:
        return type(network).forward_orig(network, *args, **kwargs)
    finally:
        for name in own:
            object.__delattr__(network, name)
        network._modules.update(own)


def _bare(block: torch.nn.Module, *args: Any, transformer_options: Any = None, **kwargs: Any) -> Any:
    return block(*args, **kwargs)


def _zeros(attention: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.zeros_like(x)


def _without_options(guards: Any) -> list[bool]:
    return ["transformer_options" not in guard.name for guard in guards]


def _put_on_top(options: dict[str, Any], installed: set[Callable[..., Any]]) -> None:
    current = options.get(OVERRIDE_KEY)
    if current not in installed:
        override = _sparse_override(current)
        installed.add(override)
        options[OVERRIDE_KEY] = override


def _sparse_override(previous: Callable[..., Any] | None) -> Callable[..., Any]:
    def override(func: Callable[..., Any], q: Any, k: Any, v: Any, heads: int, mask: Any = None, **kwargs: Any) -> Any:
        if q.shape == k.shape and mask is None:
            return torch.zeros_like(q)
        if previous is None:
            return func(q, k, v, heads, mask=mask, **kwargs)
        return previous(func, q, k, v, heads, mask=mask, **kwargs)

    override.__module__ = "/comfyui/comfy_extras/nodes_sparse_attention"
    return override
