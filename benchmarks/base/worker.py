"""Measures the op of one checkout for another process: ``python worker.py FOLDER DEVICE``.

The package of the folder is imported as ``psa_core``, and the one beside this file under another name, so that both
are measured with the same tensors by the same clock. Each line of the input is a call, and each of the output what came
of it, as JSON: ``{"case": fields of a Case, "config": changed settings as Python, "rounds": n}``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
from ast import literal_eval
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_HERE = "psa_tools"


def main(folder: Path, device_name: str) -> None:
    """Answer calls until the input ends."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # In place of this file's folder.
    sys.path[0] = str(folder)
    tools = _tools()
    measured = _Measured(folder, tools, device_name)
    for line in sys.stdin:
        try:
            answer = measured.answer(**json.loads(line))
        except Exception as failure:
            answer = {"refusal": f"{type(failure).__name__}: {failure}".splitlines()[0][:200]}
        print(json.dumps(answer), file=answers, flush=True)


class _Measured:
    """The op of one checkout on one case at a time."""

    def __init__(self, folder: Path, tools: Callable[[str], ModuleType], device_name: str) -> None:
        self._folder, self._tools, self._device = folder, tools, torch.device(device_name)
        self._case: Any = None
        self._inputs: Any = None

    def answer(self, case: dict[str, Any], config: str) -> dict[str, Any]:
        """Milliseconds of a call on the device and on the host, and the density of its level map."""
        op = importlib.import_module("psa_core")
        assert Path(str(op.__file__)).is_relative_to(self._folder), f"{op.__file__} has come in its way"
        inputs, settings = self._inputs_of(case), op.PSAConfig(**literal_eval(config))
        backend = "triton" if self._device.type == "cuda" else "torch"
        of_case = {"grid": self._case.grid, "text_length": self._case.text_length, "backend": backend}
        call = partial(op.pyramid_sparse_attention, *inputs, settings, **of_case)
        _, info = call(return_info=True)
        ms, host_ms = self._time(call)
        return {"ms": ms, "host_ms": host_ms, "density": float(info.density)}

    def _inputs_of(self, case: dict[str, Any]) -> Any:
        wanted = self._tools("cases").Case(**{**case, "grid": tuple(case["grid"])})
        if wanted != self._case:
            # Before the next ones are there.
            self._inputs = None
            dtype = self._tools("side_by_side").DTYPE
            self._inputs = self._tools("inputs").video_inputs(wanted, self._device, dtype)
            self._case = wanted
        return self._inputs

    def _time(self, call: Callable[[], Any]) -> tuple[float, float]:
        if self._device.type == "cuda":
            timing = self._tools("timing")
            (found,) = timing.measure([timing.Contender(None, call)], timing.Effort(rounds=1))
            return found.ms, found.host_ms
        start = time.perf_counter()
        call()
        ms = (time.perf_counter() - start) * 1e3
        return ms, ms


def _tools() -> Callable[[str], ModuleType]:
    """Modules of ``apps/bench`` of the package beside this file, by name."""
    package = Path(__file__).parents[2] / "psa_core"
    spec = importlib.util.spec_from_file_location(
        _HERE, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[_HERE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[_HERE])
    return lambda name: importlib.import_module(f"{_HERE}.apps.bench.{name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
