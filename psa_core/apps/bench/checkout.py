"""``benchmarks/``, which lies beside the package in a checkout of the repository and nowhere else."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
# A name of its own, as "benchmarks" may be anybody's.
_NAME = "psa_benchmarks"


def in_checkout() -> bool:
    """Whether this package is part of a checkout of the repository."""
    # Beside an installed package there may be a folder of this name too, but no project file.
    return all((ROOT / file).is_file() for file in ("pyproject.toml", "benchmarks/command.py"))


@lru_cache(maxsize=1)
def source_digest() -> str:
    """The first digits of a hash over the code of this package, and in a checkout over that of its benchmarks."""
    folders = [Path(__file__).parents[2], *([ROOT / "benchmarks"] if in_checkout() else [])]
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


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
