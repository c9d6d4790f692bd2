"""Packages that nodes want: what a user is told who lacks one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def needs() -> ModuleType:
    """By its file: the folder of nodes wants ComfyUI."""
    spec = importlib.util.spec_from_file_location("psa_needs", ROOT / "nodes" / "needs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_there_passes(needs: ModuleType) -> None:
    needs.require()
    needs.require("json", "torch")


def test_what_is_missing_is_named_with_the_command(needs: ModuleType) -> None:
    with pytest.raises(RuntimeError) as raised:
        needs.require("no_such_module", "json", "nor_this_one")
    message = str(raised.value)
    assert message.startswith("no_such_module and nor_this_one cannot be imported")
    assert "`pip install -r requirements.txt`" in message
    assert str(ROOT) in message
    assert (ROOT / "requirements.txt").is_file()
