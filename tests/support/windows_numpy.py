"""NumPy 1 on Windows, as far as the package uses it: arrays of Python's whole numbers are int32."""

from __future__ import annotations

from typing import Any

import numpy as np


class WindowsNumpy:
    """Takes the place of a module's ``np``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def arange(self, *bounds: Any, dtype: Any = None) -> np.ndarray:
        return np.arange(*bounds, dtype=dtype or np.int32)

    def array(self, x: Any, dtype: Any = None) -> np.ndarray:
        made = np.array(x, dtype)
        return made.astype(np.int32) if dtype is None and made.dtype == np.int64 else made

    def indices(self, shape: Any, dtype: Any = np.int32) -> np.ndarray:
        return np.indices(shape, dtype)

    def reshape(self, x: Any, shape: Any) -> np.ndarray:
        return np.reshape(x if isinstance(x, np.ndarray) else self.array(x), shape)

    def dot(self, x: Any, y: Any) -> Any:
        return np.dot(*(a if isinstance(a, np.ndarray) else self.array(a) for a in (x, y)))
