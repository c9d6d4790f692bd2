"""What the patch under test did with single calls, which its report keeps no maps of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io


class TestProbe(io.ComfyNode):
    """Writes down where the video of every sparse call was taken to lie, and its level map."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`path` is a file of torch's, a list of a dict for each call, in their order."""
        return io.Schema(
            node_id="PSATestProbe",
            category="psa/test",
            inputs=[io.Model.Input("model"), io.String.Input("path")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, path: str) -> io.NodeOutput:
        """Patch a clone."""
        written: list[dict[str, Any]] = []
        probed: set[int] = set()

        def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
            (options,) = [x for x in args if isinstance(x, dict) and "psa_run" in x]
            run = options["psa_run"].run
            if id(run) not in probed:
                probed.add(id(run))
                _probe(run, written)
            out = executor(*args, **kwargs)
            torch.save(written, Path(path))
            return out

        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "psa_test_probe", apply_model)
        return io.NodeOutput(patched)


def _probe(run: Any, written: list[dict[str, Any]]) -> None:
    attend, add_sparse = run.attend, run.report.add_sparse

    def attend_and_write(q: Any, k: Any, v: Any, place: Any) -> Any:
        sinks = [tuple(sink) for sink in place.sinks]
        written.append({"step": place.step, "layer": place.layer, "grid": place.grid, "sinks": sinks})
        return attend(q, k, v, place)

    def add_and_write(step: int, layer: int, shares: Any, levels: torch.Tensor, *args: Any) -> None:
        written[-1]["levels"] = levels
        add_sparse(step, layer, shares, levels, *args)

    run.attend, run.report.add_sparse = attend_and_write, add_and_write
