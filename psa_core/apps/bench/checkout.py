"""``benchmarks/``, which lies beside the package in a checkout of the repository and nowhere else."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
# A name of its own, as "benchmarks" may be anybody's.
_NAME = "psa_benchmarks"


def in_checkout() -> bool:
    """Whether this package is part of a checkout of the repository."""
    # Beside an installed package there may be a folder of this name too, but no project file.
    return all((ROOT / file).is_file() for file in ("pyproject.toml", "benchmarks/command.py"))


def benchmarks_command() -> Any:
    """The module ``benchmarks/command.py`` of this checkout."""
    if _NAME not in sys.modules:
        folder = ROOT / "benchmarks"
        spec = importlib.util.spec_from_file_location(
            _NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{_NAME}.command")
