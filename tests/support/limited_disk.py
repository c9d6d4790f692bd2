"""Child processes that cannot write large files: what a full disk is to them, without being root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

needs_limits = pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")


def run_python(code: str, largest_file: int) -> subprocess.CompletedProcess[str]:
    """Run code with this Python, where no file may be larger than so many bytes."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file}, {largest_file}))\n"
    # No bytecode: it is cached in files, too.
    command = [sys.executable, "-B", "-c", limit + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
