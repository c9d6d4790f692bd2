"""What other packs do to a model: copy its options, run it twice, put overrides on top again, break off."""

from __future__ import annotations

import copy
import itertools
import pickle
import time
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.latest import io

from .override import OVERRIDE_KEY
from .own_forwards import model_node


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
        return model_node("PSATestClear")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Clear."""
        cleared = model.clone()
        cleared.model_options["transformer_options"] = {}
        return io.NodeOutput(cleared)


class TestTwice(io.ComfyNode):
    """Runs the model once more within each forward, with the options that it is handed, as guidance packs do."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with a forward within each forward out."""
        return model_node("PSATestTwice")

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
        return model_node("PSATestSparseAttention")

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
        return model_node("PSATestOneByOne")

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
        return model_node("PSATestUnreadable")

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
    TestBreakOff,
    TestClear,
    TestCopy,
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


_COPIES = {"deepcopy": copy.deepcopy, "pickle": _pickled}
_COPYING = {"deepcopy": _deep_copying, "pickle": _pickling}


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
