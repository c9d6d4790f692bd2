"""The progress bar of a pipeline: steps, density so far, and the time that is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...hosts.diffusers import Handle
from ...report.so_far import DensitySoFar


@contextmanager
def density_on_bar(pipeline: Any, handle: Handle | None) -> Iterator[None]:
    """While it is open, every step of the pipeline's progress bar has the density so far beside it.

    Args:
        pipeline: one of diffusers', whose bars are tqdm's; of a modular one, a block has them.
        handle: of its patch; None leaves the bar with steps and time.
    """
    with_bar = getattr(pipeline, "with_bar", pipeline)
    make_bar = with_bar.progress_bar
    so_far: DensitySoFar | None = None

    def progress_bar(*args: Any, **kwargs: Any) -> Any:
        bar = make_bar(*args, **kwargs)
        update = bar.update

        def with_density(n: float = 1) -> Any:
            nonlocal so_far
            if handle is not None:
                # The first forward pass of a run may begin a report.
                if so_far is None or so_far.report is not handle.report:
                    so_far = DensitySoFar(handle.report)
                density = so_far.ask()
                bar.set_postfix_str("" if density is None else f"density so far {density:.2f}", refresh=False)
            return update(n)

        bar.update = with_density
        return bar

    with_bar.progress_bar = progress_bar
    try:
        yield
    finally:
        del with_bar.progress_bar
