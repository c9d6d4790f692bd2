"""Caches of tensors on a device, which outlive the call that fills them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Any, Generic, TypeVar

import torch

from .modes import tensors_differ

T = TypeVar("T")

# Weakly: caches of functions that are gone, such as tests', go with them.
_CACHES: weakref.WeakSet[DeviceCache[Any]] = weakref.WeakSet()


class DeviceCache(Generic[T]):
    """``functools.lru_cache`` for a function that makes tensors: the same ones every time, which nobody may change.

    They are made out of inference mode, because autograd refuses tensors made there. Under a dispatch mode such as
    ``FakeTensorMode``, or a transform of ``torch.func``, new tensors are of a kind that means nothing outside, and real
    ones may be refused: there the function runs at each call, and the cache is left alone.
    """

    def __init__(self, make: Callable[..., T], maxsize: int) -> None:
        self._make = make
        self._cached = lru_cache(maxsize)(torch.inference_mode(False)(make))
        self.cache_clear, self.cache_info = self._cached.cache_clear, self._cached.cache_info
        update_wrapper(self, make)
        _CACHES.add(self)

    def __call__(self, *args: Any) -> T:
        return self._make(*args) if tensors_differ() else self._cached(*args)


def device_cache(maxsize: int) -> Callable[[Callable[..., T]], DeviceCache[T]]:
    """Decorate a function with a :class:`DeviceCache` of so many entries."""
    return lambda make: DeviceCache(make, maxsize)


def clear_device_caches() -> None:
    """Let go of every tensor in every :class:`DeviceCache`; the next call that needs one makes it again."""
    for cache in list(_CACHES):
        cache.cache_clear()
