"""The running ComfyUI that the tests of this folder share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .browser import find_browser, opened
from .client import ComfyClient
from .level_bar import LISTED, RENDERERS, rendered, show
from .server import ComfyServer, ComfyUINotFoundError, Installation

# Loaded by ComfyUI, not by pytest: it imports ComfyUI's own modules.
collect_ignore = ["test_nodes"]


@dataclass(frozen=True)
class ComfyUI:
    """A started server and a client connected to it."""

    server: ComfyServer
    client: ComfyClient


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip for want of ComfyUI. From here pytest sums the skips up in one line; from a fixture it lists every test."""
    if "comfyui" not in getattr(item, "fixturenames", ()) or item.config.getoption("--require-comfyui", default=False):
        return
    try:
        Installation.find()
    except ComfyUINotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    """Start ComfyUI for the first test that asks. Getting here without one means that it was required."""
    try:
        installation = Installation.find()
    except ComfyUINotFoundError as error:
        pytest.fail(str(error), pytrace=False)
    server = ComfyServer(installation, tmp_path_factory.mktemp("comfyui"))
    server.start()
    try:
        with closing(ComfyClient(server.address)) as client:
            yield ComfyUI(server, client)
    finally:
        server.stop()


@pytest.fixture
def presets_folder(comfyui: ComfyUI) -> Iterator[Path]:
    """The user's own preset files, none at first."""
    folder = comfyui.server.base_directory / "user" / "psa_presets"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


# Not for the whole session: as long as playwright runs, nothing else may run an event loop.
@pytest.fixture(scope="module")
def page(comfyui: ComfyUI) -> Iterator[Any]:
    """ComfyUI's front end in a browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser_path = find_browser()
    if browser_path is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver, opened(driver, browser_path, comfyui.server.address) as page:
        yield page


@pytest.fixture(scope="module", params=RENDERERS)
def canvas(page: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page in one of the renderers."""
    with rendered(page, request.param) as shown:
        yield shown


@pytest.fixture
def loader(canvas: Any) -> Any:
    """A Preset Loader whose presets have arrived; its numbers are 0.5, 0.6, 0.7, 0.8."""
    show(canvas, "PSAPresetLoader")
    canvas.wait_for_function(LISTED, timeout=20_000)
    return canvas
