"""Tests of single operations."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def poisoned(poisoned_memory: None) -> None:
    """No operation leaves an element of its output unwritten."""
