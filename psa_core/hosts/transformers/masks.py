"""Masks of long prompts, with a number for every pair of tokens: nobody computes one until somebody looks."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_map
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function

from ...ops.modes import is_traced

# Fewer queries are no prompt, but decoding, also where several tokens are guessed at once; and no query block.
FEWEST_QUERIES = 64


class Rows(NamedTuple):
    """Batch entries whose prompts begin and end at the same places.

    Attributes:
        entries: their numbers.
        queries, keys: the part of the call without padding.
    """

    entries: list[int]
    queries: slice
    keys: slice


class Deferred(torch.Tensor):
    """A causal mask ``[B, 1, Lq, Lk]`` as arguments of the function that would make it.

    Models hand it from layer to layer. Whoever reads it as a tensor finds True where a query sees a key, as far
    as order and padding go.

    Args:
        base: the attention implementation that dense calls run.
        arguments: of transformers' mask functions, by name.
    """

    base: str
    arguments: dict[str, Any]

    @staticmethod
    def __new__(cls, base: str, arguments: dict[str, Any], device: torch.device) -> Deferred:
        shape = arguments["batch_size"], 1, q_length(arguments), arguments["kv_length"]
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bool, device=device)

    def __init__(self, base: str, arguments: dict[str, Any], device: torch.device) -> None:
        self.base, self.arguments = base, arguments

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Deferred({self.base!r}, shape={tuple(self.shape)}, device={str(self.device)!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # As accelerate moves what one GPU hands on to the next.
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") in (None, torch.bool):
            return args[0].on(kwargs.get("device", args[0].device))
        args, kwargs = tree_map(lambda x: x._read if isinstance(x, Deferred) else x, (args, kwargs))
        return func(*args, **kwargs)

    def on(self, device: torch.device) -> Deferred:
        """The same mask for another device."""
        moved = {key: x.to(device) if isinstance(x, torch.Tensor) else x for key, x in self.arguments.items()}
        if "device" in moved:
            moved["device"] = device
        return Deferred(self.base, moved, device)

    @property
    def plain(self) -> bool:
        """Whether queries see all that lies in front of them, but for padding."""
        function = self.arguments.get("mask_function", causal_mask_function)
        whole = self.arguments.get("local_size") is None and not self.arguments.get("kv_offset")
        return function is causal_mask_function and whole

    @cached_property
    def dense(self) -> Any:
        """What the attention implementation of dense calls takes: a tensor, a mask of blocks, or None."""
        return make_mask(self.base, self.arguments)

    @property
    def _read(self) -> torch.Tensor:
        entries, _, queries, keys = self.shape
        places = torch.arange(keys, device=self.device)
        seen = places <= self.past + torch.arange(queries, device=self.device)[:, None]
        padding = self.arguments.get("attention_mask")
        if padding is None:
            return seen.expand(entries, 1, -1, -1)
        real = torch.zeros(entries, keys, dtype=torch.bool, device=self.device)
        real[:, : padding.shape[1]] = padding[:, :keys].bool()
        return seen & real[:, None, None]

    @cached_property
    def past(self) -> int:
        """Tokens in front of the queries. Of a static cache the GPU knows, and is waited for."""
        return int(_offset(self.arguments))

    @cached_property
    def rows(self) -> list[Rows] | None:
        """The call without its padding, which may lie in front of prompts or behind them; None for any other mask.

        Waits for the GPU, once for all layers, as transformers' own masks do.
        """
        stop = self.past + self.shape[2]
        padding = self.arguments.get("attention_mask")
        if padding is None:
            return [self._rows(list(range(self.shape[0])), 0, stop)]
        seen = padding[:, :stop].bool().cpu()
        entries: dict[tuple[int, int], list[int]] = {}
        for entry, row in enumerate(seen):
            real = row.nonzero()[:, 0].tolist()
            first, last = (real[0], real[-1] + 1) if real else (0, 0)
            if len(real) != last - first:
                return None
            entries.setdefault((first, last), []).append(entry)
        return [self._rows(group, *ends) for ends, group in entries.items()]

    def _rows(self, entries: list[int], first: int, last: int) -> Rows:
        queries = slice(max(first - self.past, 0), max(last - self.past, 0))
        return Rows(entries, queries, slice(first, last))

    def of(self, rows: Rows) -> Deferred:
        """The mask of these rows alone."""
        queries, keys = rows.queries.stop - rows.queries.start, rows.keys.stop - rows.keys.start
        own: dict[str, Any] = {"batch_size": len(rows.entries), "kv_length": keys, "attention_mask": None}
        if "q_length" in self.arguments:
            own |= {"q_length": queries, "q_offset": keys - queries}
        else:
            own["cache_position"] = torch.arange(keys - queries, keys, device=self.device)
        return Deferred(self.base, self.arguments | own, self.device)


def deferred_or_made(base: str, arguments: dict[str, Any]) -> Any:
    """A mask for a model whose dense calls run ``base``: deferred where the call may run sparse.

    Args:
        arguments: of transformers' mask functions, by name.
    """
    if is_traced() or q_length(arguments) < FEWEST_QUERIES:
        return make_mask(base, arguments)
    deferred = Deferred(base, arguments, _device(arguments))
    if deferred.plain:
        # Some models ask whether there is a mask. Where they would find none, it takes no time to see that.
        none = _needs_none(base, arguments) and make_mask(base, arguments) is None
        return None if none else deferred
    made = make_mask(base, arguments)
    # FlashAttention has no mask of several sequences in a row, which it finds by their positions.
    return deferred if made is None and "flash" in base else made


def _needs_none(base: str, arguments: dict[str, Any]) -> bool:
    """Whether dense calls run causal attention without being told by a mask: nothing is cached, nothing is padding."""
    keys, padding = arguments["kv_length"], arguments.get("attention_mask")
    skipped = (base == "sdpa" and arguments.get("allow_is_causal_skip", True)) or "flash" in base
    return skipped and q_length(arguments) == keys and (padding is None or bool(padding[:, :keys].all()))


def make_mask(base: str, arguments: dict[str, Any]) -> Any:
    """The mask that transformers makes for an attention implementation; None where it makes none."""
    function = ALL_MASK_ATTENTION_FUNCTIONS.get(base)
    return None if function is None else function(**arguments)


def q_length(arguments: dict[str, Any]) -> int:
    """How many queries a mask is for; transformers 4 says it by their places."""
    return arguments["q_length"] if "q_length" in arguments else len(arguments["cache_position"])


def _offset(arguments: dict[str, Any]) -> Any:
    return arguments.get("q_offset", 0) if "q_length" in arguments else arguments["cache_position"][0]


def _device(arguments: dict[str, Any]) -> torch.device:
    said = arguments.get("device")
    if said is None:
        tensors = [x for x in arguments.values() if isinstance(x, torch.Tensor)]
        return tensors[0].device if tensors else torch.device("cpu")
    return torch.device(said)
