"""The front end with a file under every name that a bundled workflow asks for."""

from __future__ import annotations

from typing import Any

import pytest

from tools.workflows import WORKFLOWS

from .. import pictures
from ..browser import reload_page
from ..conftest import ComfyUI
from ..stand_ins import write_stand_ins

Presets = dict[str, Any]
LISTED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def presets(comfyui: ComfyUI) -> Presets:
    models: Presets = comfyui.client.get_json("/psa/presets")["models"]
    return models


@pytest.fixture(scope="session")
def stand_ins(comfyui: ComfyUI, presets: Presets) -> None:
    """Tiny models and pictures under the names in workflows."""
    for workflow in WORKFLOWS.values():
        write_stand_ins(workflow.files(presets), comfyui.server.base_directory)


@pytest.fixture(scope="module")
def front_end(stand_ins: None, page: Any, request: pytest.FixtureRequest) -> Any:
    """The front end, begun anew once when the files are there."""
    if not request.session.stash.get(LISTED, False):
        reload_page(page)
        request.session.stash[LISTED] = True
    pictures.prepare(page)
    return page
