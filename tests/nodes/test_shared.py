"""What nodes share: what a user is told who lacks a package that a node wants."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    """By its file, with stand-ins for ComfyUI and for what it takes from the pack."""
    spec = importlib.util.spec_from_file_location("pack.nodes.shared", ROOT / "nodes" / "shared.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("comfy_api", "comfy_api.latest", "server", "pack", "pack.nodes", "pack.psa_core.settings.errors"):
            patch.setitem(sys.modules, name, MagicMock())
        spec.loader.exec_module(module)
    return module


def test_what_is_there_passes(shared: ModuleType) -> None:
    shared.require()
    shared.require("json", "torch")


def test_what_is_missing_is_named_with_the_command(shared: ModuleType) -> None:
    with pytest.raises(RuntimeError) as raised:
        shared.require("no_such_module", "json", "nor_this_one")
    message = str(raised.value)
    assert message.startswith("no_such_module and nor_this_one cannot be imported")
    assert "`pip install -r requirements.txt`" in message
    assert str(ROOT) in message
    assert (ROOT / "requirements.txt").is_file()
