"""How much work may be done, whatever else the machine and this process have to do."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def little_work(seconds: float = 1.0) -> Iterator[None]:
    """What runs here takes this thread so many seconds of a processor at most.

    Garbage is not collected meanwhile: that takes as long as all that other tests left in memory.
    """
    collects = gc.isenabled()
    gc.disable()
    start = time.thread_time()
    try:
        yield
        taken = time.thread_time() - start
    finally:
        if collects:
            gc.enable()
    assert taken < seconds
