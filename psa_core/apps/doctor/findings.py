"""What this machine has, and whether the kernels can run on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ... import __version__
from ...ops.backends import check_backend, refusals, triton_release
from ...ops.kernel_table import PORTABLE, QUANTISED
from ...ops.precision import quantised_refusal
from ...ops.refusals import BACKEND_VARIABLE
from ...settings.dial import DIAL_PRESETS
from ...settings.errors import ConfigError
from ...settings.presets import PRESETS_DIR_VARIABLE, bundled_dir, load_families, user_dir

Finding = tuple[str, str]
"""What it is of, and what was found; more of the same has no name."""

_OPTIONAL = (
    "diffusers",
    "transformers",
    "accelerate",
    "matplotlib",
    "imageio-ffmpeg",
    "scikit-image",
    "jinja2",
    "lpips",
    "comfy-kitchen",
    "sageattention",
)


def findings(host: Iterable[Finding] = (), own_presets: Path | None = None) -> list[Finding]:
    """What was found; nothing raises, because what is missing is a finding.

    Args:
        host: what a host says of itself.
        own_presets: the folder of the user's own presets where a host has one; None for the environment variable's.
    """
    own = own_presets or user_dir()
    return [
        ("psa", __version__),
        *host,
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}"),
        # The name of the package differs between platforms; what matters is whether it can be imported.
        ("triton", triton_release() or "not installed, or it cannot be imported"),
        (BACKEND_VARIABLE, _variable()),
        *_gpus(),
        *((name, _version(name)) for name in _OPTIONAL),
        ("presets", _folder(bundled_dir())),
        ("", _folder(own) if own else f"{PRESETS_DIR_VARIABLE} is not set: no folder of your own"),
    ]


def as_lines(found: Sequence[Finding]) -> list[str]:
    """Findings one a line, in two columns."""
    width = max(len(name) for name, _ in found)
    return [f"{name:<{width}}  {finding}" for name, finding in found]


def _variable() -> str:
    try:
        check_backend("auto")
    except ConfigError as error:
        return str(error)
    return os.environ.get(BACKEND_VARIABLE) or "not set: all kernels may run"


def _gpus() -> Iterator[Finding]:
    """GPUs, and whether the kernels run on each."""
    if not torch.cuda.is_available():
        yield "GPU", "no NVIDIA or AMD GPU that torch can see"
        yield (
            PORTABLE.what,
            "cannot run without one: attention stays dense (backend 'torch' is for trying out)",
        )
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        memory = about.total_memory / 2**30
        yield f"GPU {index}", f"{about.name}, compute capability {about.major}.{about.minor}, {memory:.0f} GiB"
        for dtype in PORTABLE.dtypes:
            for what, answer in _answers(torch.device("cuda", index), dtype):
                yield what, f"{str(dtype).removeprefix('torch.')} {answer}"


def _answers(device: torch.device, dtype: torch.dtype) -> Iterator[Finding]:
    try:
        found = refusals(device, dtype, PORTABLE.head_sizes[-1])
        found[QUANTISED] = quantised_refusal(device, dtype, PORTABLE.head_sizes[-1])
    except ConfigError as error:
        yield PORTABLE.what, f"cannot run: {error}"
        return
    for kernels, refusal in found.items():
        yield kernels.what, "can run" if refusal is None else f"cannot run: {refusal}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _folder(folder: Path) -> str:
    shown = _shown(folder)
    if not folder.is_dir():
        return f"{shown}: no such folder"
    try:
        families = load_families(folder)
    except (ConfigError, OSError) as error:
        return f"{shown}: {error}"
    in_files = sum(name not in DIAL_PRESETS for family in families.values() for name in family.presets)
    return f"{shown}: {in_files} presets of {len(families)} models"


def _shown(folder: Path) -> str:
    """The end of a path: all of it may hold the user's name, and findings are posted."""
    return f".../{'/'.join(folder.parts[-3:])}"
