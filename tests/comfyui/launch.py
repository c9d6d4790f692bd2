"""Start ComfyUI's main.py where torchvision's compiled operators may not fit the installed torch.

Usage: launch.py <ComfyUI folder> <main.py arguments>. A CPU-only torch is often paired with a torchvision whose
library does not load; its Python part then fails to import for want of two operator schemas that ComfyUI never calls.
"""

from __future__ import annotations

import importlib
import runpy
import sys

import torch


def import_torchvision() -> torch.library.Library | None:
    """Import torchvision, declaring the schemas it misses if need be; they last as long as the returned library."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
        return library
    return None


def main() -> None:
    """Run main.py as if it had been started from its own folder."""
    comfyui, *arguments = sys.argv[1:]
    # This script's folder holds a server.py too, which must not hide ComfyUI's.
    sys.path[0] = comfyui
    sys.argv = [f"{comfyui}/main.py", *arguments]
    library = import_torchvision()
    runpy.run_path(sys.argv[0], run_name="__main__")
    del library


if __name__ == "__main__":
    main()
