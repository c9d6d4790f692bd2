"""Triton's interpreter at twice its speed: the same results, less work around them."""

from __future__ import annotations

import functools
import importlib.util


def quicken() -> None:
    """Have the interpreter put its functions in place of Triton's once a launch, and not check integers for overflow.

    It does the former again in every function that a kernel calls, and the latter with each sum of integers by a sum
    in 64 bits; no tensor of these tests has 2**31 elements. Versions that are made otherwise stay as they are.
    """
    if importlib.util.find_spec("triton") is None:
        return
    import triton.language as tl
    from triton.runtime import interpreter

    if not hasattr(interpreter, "_LangPatchScope"):
        return
    put_in_place = interpreter._patch_lang

    @functools.cache
    def modules(function):
        return [each for each in (tl, tl.core) if any(each is value for value in function.__globals__.values())]

    def once(function):
        needed = any(tl.core.is_builtin(module.load) for module in modules(function))
        return put_in_place(function) if needed else interpreter._LangPatchScope()

    interpreter._patch_lang = once
    # Frozen.
    object.__setattr__(interpreter.interpreter_builder.options, "sanitize_overflow", False)
