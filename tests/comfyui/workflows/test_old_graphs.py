"""Graphs and prompts that older releases saved: they load, and every setting in them is what it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..browser import EXPORT, LOAD
from ..conftest import ComfyUI
from ..server import PACK_ROOT
from .test_workflows import PROBLEMS

GRAPHS = PACK_ROOT / "tests" / "graphs"
SAVED = sorted(GRAPHS.glob("*/workflows/*.json"))


def _name(file: Path) -> str:
    return f"{file.parents[1].name}-{file.stem}"


def _prompt_of(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((file.parents[1] / "prompts" / file.name).read_text(encoding="utf-8"))
    return document


def test_releases_keep_their_graphs() -> None:
    assert len([file for file in SAVED if file.parents[1].name == "0.1.0"]) == 17


@pytest.mark.parametrize("file", SAVED, ids=_name)
def test_loads_with_the_settings_it_was_saved_with(file: Path, front_end: Any) -> None:
    """What has been added to a node since may stand beside them."""
    front_end.evaluate(LOAD, json.loads(file.read_text(encoding="utf-8")))

    assert front_end.evaluate(PROBLEMS) == []
    now = front_end.evaluate(EXPORT)
    then = _prompt_of(file)
    assert set(now) == set(then)
    for key, node in then.items():
        assert now[key]["class_type"] == node["class_type"]
        assert {name: now[key]["inputs"][name] for name in node["inputs"]} == node["inputs"]


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("file", SAVED, ids=_name)
def test_server_takes_the_prompt(file: Path, comfyui: ComfyUI) -> None:
    answer = comfyui.client.post("/psa_test/validate", _prompt_of(file))

    assert (answer["node_errors"], answer["error"], answer["valid"]) == ({}, None, True)
